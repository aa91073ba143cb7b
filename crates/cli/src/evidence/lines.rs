//! The lines of a long answer, with an end to every wait.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

/// Lines that wait to be taken.
const WAITING_LINES: usize = 4;

/// A server writes no line that is longer.
const MAX_LINE: u64 = 16 << 20;

/// Lines of an answer, as they come. They are read by a thread of their own, since a connection that
/// is dead without saying so would be read forever.
pub struct Lines {
    lines: Receiver<Result<Vec<u8>, String>>,
    patience: Duration,
}

impl Lines {
    /// Reads a body whose next line takes `patience` at most.
    pub fn new(body: impl Read + Send + 'static, patience: Duration) -> Self {
        let (sender, lines) = sync_channel(WAITING_LINES);
        std::thread::spawn(move || read(BufReader::new(body), &sender));
        Self { lines, patience }
    }

    /// The next line that is not empty, with its end; none after the last. `idle` is called before a
    /// wait.
    pub fn next(
        &mut self,
        mut idle: impl FnMut() -> Result<(), String>,
    ) -> Result<Option<Vec<u8>>, String> {
        loop {
            let line = match self.lines.try_recv() {
                Ok(line) => line?,
                Err(TryRecvError::Disconnected) => return Ok(None),
                Err(TryRecvError::Empty) => {
                    idle()?;
                    match self.lines.recv_timeout(self.patience) {
                        Ok(line) => line?,
                        Err(RecvTimeoutError::Disconnected) => return Ok(None),
                        Err(RecvTimeoutError::Timeout) => {
                            let seconds = self.patience.as_secs();
                            return Err(format!("the server said nothing for {seconds} seconds"));
                        }
                    }
                }
            };
            // Empty ones say that the server is there.
            if line != b"\n" {
                return Ok(Some(line));
            }
        }
    }
}

fn read(mut body: impl BufRead, lines: &SyncSender<Result<Vec<u8>, String>>) {
    loop {
        let mut line = Vec::new();
        let read = body.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        let line = match read {
            Ok(0) => return,
            Ok(_) if line.ends_with(b"\n") => Ok(line),
            Ok(_) => Err("the answer broke off within a line, or is not one of a server".into()),
            Err(error) => Err(format!("the answer broke off: {error}")),
        };
        let is_over = line.is_err();
        if lines.send(line).is_err() || is_over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &'static str) -> Result<Vec<Vec<u8>>, String> {
        let mut lines = Lines::new(text.as_bytes(), Duration::from_secs(10));
        let mut all = Vec::new();
        while let Some(line) = lines.next(|| Ok(()))? {
            all.push(line);
        }
        Ok(all)
    }

    #[test]
    fn empty_lines_are_left_out() {
        assert_eq!(
            all("{}\n\n\n[]\n"),
            Ok(vec![b"{}\n".to_vec(), b"[]\n".to_vec()])
        );
    }

    #[test]
    fn half_a_line_is_an_error() {
        assert!(all("{}\n{").is_err());
    }

    #[test]
    fn silence_ends() {
        struct Silence;
        impl Read for Silence {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                std::thread::park_timeout(Duration::from_secs(5));
                Ok(0)
            }
        }
        let mut lines = Lines::new(Silence, Duration::from_millis(10));
        let mut waits = 0;
        let next = lines.next(|| {
            waits += 1;
            Ok(())
        });
        assert!(next.is_err_and(|error| error.contains("said nothing")));
        assert_eq!(waits, 1);
    }
}
