//! What makes two results the same.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use crate::ProveError;

/// How long the user's command may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What makes two results the same.
#[derive(Clone, Debug, Default)]
pub struct Same {
    /// JSON Pointers (RFC 6901) to the only parts that are compared. All of it if there are none.
    pub only: Vec<String>,
    /// JSON Pointers to parts that may differ. The empty one is all of it.
    pub ignore: Vec<String>,
    /// A command that is given two more arguments, the names of files with the expected and the other result
    /// as JSON. It ends with 0 if they are the same, and with 1 if they are not.
    pub command: Option<String>,
}

impl Same {
    /// What is compared of a result.
    pub fn compared(&self, result: &Value) -> Value {
        let mut result = result.clone();
        for pointer in &self.ignore {
            if let Some(part) = result.pointer_mut(pointer) {
                *part = Value::Null;
            }
        }
        match self.only.is_empty() {
            true => result,
            false => {
                let parts = self.only.iter().map(|pointer| result.pointer(pointer));
                let parts = parts.map(|part| part.cloned().unwrap_or(Value::Null));
                Value::Array(parts.collect())
            }
        }
    }

    /// Makes the other result the expected one, if the command says that they are the same.
    pub async fn unify(&self, expected: &Value, other: &mut Value) -> Result<(), ProveError> {
        let Some(command) = &self.command else {
            return Ok(());
        };
        if self.compared(expected) == self.compared(other) {
            return Ok(());
        }
        if are_same(command, expected, other).await? {
            other.clone_from(expected);
        }
        Ok(())
    }
}

async fn are_same(command: &str, expected: &Value, other: &Value) -> Result<bool, ProveError> {
    let folder = tempfile::tempdir().map_err(ProveError::Io)?;
    let file = |name: &str, value: &Value| {
        let path = folder.path().join(name);
        std::fs::write(&path, value.to_string()).map(|()| path)
    };
    let expected = file("expected.json", expected).map_err(ProveError::Io)?;
    let other = file("other.json", other).map_err(ProveError::Io)?;
    let failed = |why: String| ProveError::Compare(format!("{command:?} {why}"));
    let running = Command::new("sh")
        .arg("-c")
        .arg(format!("{command} \"$@\""))
        .arg("sh")
        .args([expected, other])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let ended = match tokio::time::timeout(PATIENCE, running).await {
        Ok(ended) => ended.map_err(|error| failed(error.to_string()))?,
        Err(_) => return Err(failed(format!("took {} s", PATIENCE.as_secs()))),
    };
    match ended.status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => {
            let said = String::from_utf8_lossy(&ended.stderr);
            Err(failed(format!(
                "ended with {}: {}",
                ended.status,
                said.trim()
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parts_are_left_out_or_chosen() {
        let result = json!({"paid": 5, "at": "noon", "by": {"name": "ada", "id": 7}});
        let same = |only: &[&str], ignore: &[&str]| Same {
            only: only.iter().map(|of| (*of).to_owned()).collect(),
            ignore: ignore.iter().map(|of| (*of).to_owned()).collect(),
            command: None,
        };
        assert_eq!(same(&[], &[]).compared(&result), result);
        assert_eq!(same(&[], &[""]).compared(&result), Value::Null);
        assert_eq!(
            same(&["/paid", "/by", "/no"], &["/by/id"]).compared(&result),
            json!([5, {"name": "ada", "id": null}, null])
        );
    }

    #[tokio::test]
    async fn a_command_can_decide() {
        let by = |command: &str| Same {
            command: Some(command.to_owned()),
            ..Same::default()
        };
        let unify = async |command: &str| {
            let mut other = json!([1, 3]);
            let unified = by(command).unify(&json!([1, 2]), &mut other).await;
            unified.map(|()| other)
        };
        assert_eq!(unify("true").await.expect("runs"), json!([1, 2]));
        assert_eq!(unify("cmp -s").await.expect("runs"), json!([1, 3]));
        let error = unify("echo no >&2; exit 2;").await.expect_err("fails");
        assert!(error.to_string().contains("ended with"), "{error}");
        // Where nothing differs nobody is asked.
        let mut equal = json!(1);
        by("exit 2")
            .unify(&json!(1), &mut equal)
            .await
            .expect("is not run");
    }
}
