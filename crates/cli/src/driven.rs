//! What a throw-away server is told by whoever tries something out with it: to skip time.

use steadfast_server::Runtime;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, stdin, stdout};

/// Takes commands, one a line, and answers each with a line, until the input ends: then the process does,
/// too. `skip N`: to when something is due, by N nanoseconds more. `by N`: by N nanoseconds.
pub async fn obey(runtime: Runtime) {
    let mut lines = BufReader::new(stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let answer = format!("{}\n", answer(&runtime, &line).await);
        let mut out = stdout();
        if out.write_all(answer.as_bytes()).await.is_err() || out.flush().await.is_err() {
            break;
        }
    }
    // Nobody is there any more.
    std::process::exit(0);
}

async fn answer(runtime: &Runtime, line: &str) -> String {
    let (command, nanos) = line.split_once(' ').unwrap_or((line, ""));
    let Ok(nanos) = nanos.parse() else {
        return format!("error: {line:?} is no command");
    };
    match command {
        "skip" => match runtime.skip_time(nanos).await {
            Ok(Some(skipped)) => format!("skipped {skipped}"),
            Ok(None) => "nothing is due".to_owned(),
            Err(error) => format!("error: {error}"),
        },
        "by" => {
            runtime.skip_time_by(nanos);
            format!("skipped {nanos}")
        }
        _ => format!("error: {line:?} is no command"),
    }
}
