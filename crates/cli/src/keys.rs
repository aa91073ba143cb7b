//! `steadfast keys`: the API keys of a server.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::evidence::client::Server;

/// Commands about API keys.
#[derive(Subcommand)]
pub enum Command {
    /// Make a key. It is shown once, on the standard output, and kept nowhere.
    Create(Create),
    /// Show all keys, without their secrets.
    List(List),
    /// Revoke a key, at once and for ever.
    Revoke(Revoke),
    /// Write a new first key into the file where the server takes it from at its next start.
    Bootstrap(Bootstrap),
}

/// What the holder of a key is.
#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    User,
    Service,
    Agent,
}

#[derive(Args)]
pub struct Create {
    #[command(flatten)]
    server: Server,
    /// Whose it is: the name in the log. Two keys of the same name are the same principal.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What its holder is.
    #[arg(long, value_enum, default_value = "service")]
    kind: Kind,
    /// A group of its holder; may be repeated.
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
    /// How long it is valid: a number and s, m, h or d. For ever if it is not given.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    expires: Option<u32>,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    server: Server,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct Revoke {
    #[command(flatten)]
    server: Server,
    /// The key's id: the middle part of the key.
    id: String,
}

#[derive(Args)]
pub struct Bootstrap {
    /// The server's configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl Command {
    /// Runs the command.
    pub fn run(self) -> Result<(), String> {
        match self {
            Self::Create(create) => create.run(),
            Self::List(list) => list.run(),
            Self::Revoke(revoke) => revoke.run(),
            Self::Bootstrap(bootstrap) => bootstrap.run(),
        }
    }
}

impl Create {
    fn run(self) -> Result<(), String> {
        let kind = match self.kind {
            Kind::User => "user",
            Kind::Service => "service",
            Kind::Agent => "agent",
        };
        let body = json!({
            "name": self.name,
            "kind": kind,
            "groups": self.group,
            "expiresInSeconds": self.expires,
        });
        let answer = self.server.post_json("/api/v1/keys", &body)?;
        let key = answer["key"].as_str().ok_or("the answer has no key")?;
        match self.json {
            true => println!("{answer}"),
            false => {
                eprintln!("{}; this is the only time that it is shown:", line(&answer));
                println!("{key}");
            }
        }
        Ok(())
    }
}

impl List {
    fn run(self) -> Result<(), String> {
        let answer: Value = serde_json::from_reader(self.server.get("/api/v1/keys")?)
            .map_err(|error| format!("not the answer of a server: {error}"))?;
        if self.json {
            println!("{answer}");
            return Ok(());
        }
        for key in answer["keys"].as_array().into_iter().flatten() {
            println!("{}", line(key));
        }
        Ok(())
    }
}

impl Revoke {
    fn run(self) -> Result<(), String> {
        let is_id = self.id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_id || self.id.is_empty() {
            return Err("an id has letters and digits only; the key itself is not needed".into());
        }
        let answer = self.server.delete(&format!("/api/v1/keys/{}", self.id))?;
        println!("{}", line(&answer));
        Ok(())
    }
}

impl Bootstrap {
    fn run(self) -> Result<(), String> {
        let config = super::serve::read(&self.config)?;
        if !config.auth.api_keys {
            return Err("API keys are switched off: set api_keys in [auth]".into());
        }
        let path = config.auth.admin_key_path(&config);
        let path = path.ok_or("a store in memory has no place for a key: set auth.admin_key")?;
        steadfast_server::authn::write_new_key(&path)?;
        println!(
            "{}: the server takes this key at its next start",
            path.display()
        );
        Ok(())
    }
}

/// A key in one line.
fn line(key: &Value) -> String {
    let text = |name: &str| key[name].as_str().unwrap_or_default().to_owned();
    let groups = key["groups"].as_array().into_iter().flatten();
    let groups: Vec<_> = groups.filter_map(Value::as_str).collect();
    let mut line = format!("{} {} {:?}", text("id"), text("kind"), text("name"));
    if !groups.is_empty() {
        line += &format!(", groups {}", groups.join(", "));
    }
    line += &format!(", made {} by {}", text("created"), text("createdBy"));
    if key["expires"].is_string() {
        line += &format!(", expires {}", text("expires"));
    }
    if key["revoked"].is_string() {
        line += &format!(", REVOKED {} by {}", text("revoked"), text("revokedBy"));
    }
    line
}

/// A time such as `90d`, in seconds.
fn seconds(text: &str) -> Result<u32, String> {
    let failed = || "a number and s, m, h or d, such as 90d".to_owned();
    let unit = text.chars().next_back().ok_or_else(failed)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(failed()),
    };
    let number: u32 = text[..text.len() - 1].parse().map_err(|_| failed())?;
    let seconds = number.checked_mul(factor).filter(|seconds| *seconds > 0);
    seconds.ok_or_else(failed)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn times_have_a_unit() {
        for (text, expected) in [("30s", 30), ("5m", 300), ("2h", 7200), ("90d", 7_776_000)] {
            assert_eq!(seconds(text), Ok(expected));
        }
        for nonsense in ["", "d", "90", "0d", "-1d", "1y", "99999999d", "1é"] {
            assert!(seconds(nonsense).is_err(), "{nonsense:?}");
        }
    }
}
