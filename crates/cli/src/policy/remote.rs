//! `steadfast policy get`, `put`, `history`: the policies of a server.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use steadfast_server::governance::load;

use crate::evidence::client::{Server, escaped};

const PATH: &str = "/api/v1/policies";

/// Which policies, and where to.
#[derive(Args)]
pub struct Get {
    #[command(flatten)]
    server: Server,
    /// Those with this hash, as entries name it; those in force by default.
    #[arg(long, value_name = "HASH")]
    hash: Option<String>,
    /// Write the files into this directory. Files in it are not overwritten.
    #[arg(long, short, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// Policies in place of others.
#[derive(Args)]
pub struct Put {
    /// A file of Cedar policies, or a directory with such files.
    path: PathBuf,
    #[command(flatten)]
    server: Server,
    /// Only in place of those with this hash (`none` for none): what is in force when the command starts
    /// by default.
    #[arg(long, value_name = "HASH")]
    replaces: Option<String>,
    /// Also policies by which you could not change policies any more.
    #[arg(long)]
    lock_out: bool,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// What was in force when.
#[derive(Args)]
pub struct History {
    #[command(flatten)]
    server: Server,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

impl Get {
    pub(super) fn run(self) -> Result<ExitCode, String> {
        let answer = match &self.hash {
            Some(hash) => self.server.get_json(&format!("{PATH}/{}", escaped(hash)))?,
            None => self.server.get_json(PATH)?,
        };
        let files = files(&answer);
        if let Some(folder) = &self.output {
            write(folder, &files)?;
        }
        if self.json {
            println!("{answer}");
            return Ok(ExitCode::SUCCESS);
        }
        let text = |name: &str| answer[name].as_str().unwrap_or_default();
        eprintln!("{} {}", text("hash"), text("origin"));
        if self.output.is_none() {
            for (name, text) in files {
                println!("// {name}\n{}\n", text.trim_end());
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Name and text of each file.
fn files(answer: &Value) -> Vec<(&str, &str)> {
    let files = answer["files"].as_array().into_iter().flatten();
    files
        .filter_map(|file| Some((file["name"].as_str()?, file["text"].as_str()?)))
        .collect()
}

fn write(folder: &Path, files: &[(&str, &str)]) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for (name, text) in files {
        // What a server says is not to lead elsewhere.
        let name = Path::new(name).file_name().ok_or("a file has no name")?;
        let path = folder.join(name);
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let mut file = std::fs::File::create_new(&path).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
    }
    Ok(())
}

impl Put {
    pub(super) fn run(self) -> Result<ExitCode, String> {
        let (_, policies) = load(&self.path)?;
        let replaces = match self.replaces {
            Some(hash) => hash,
            None => {
                let now = self.server.get_json(PATH)?;
                now["hash"].as_str().unwrap_or_default().to_owned()
            }
        };
        let path = match self.lock_out {
            true => format!("{PATH}?lock_out=true"),
            false => PATH.to_owned(),
        };
        let body = json!({ "files": policies.sources() });
        let answer = self.server.put_json(&path, &replaces, &body)?;
        match self.json {
            true => println!("{answer}"),
            false => println!("in force: {}", answer["hash"].as_str().unwrap_or_default()),
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl History {
    pub(super) fn run(self) -> Result<ExitCode, String> {
        let answer = self.server.get_json(&format!("{PATH}/history"))?;
        if self.json {
            println!("{}", answer["changes"]);
            return Ok(ExitCode::SUCCESS);
        }
        for change in answer["changes"].as_array().into_iter().flatten() {
            let text = |name: &str| change[name].as_str().unwrap_or_default();
            println!(
                "{} {} by {} ({})",
                text("time"),
                text("hash"),
                text("principal"),
                text("call")
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}
