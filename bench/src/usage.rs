//! What a process has used, as Linux tells it in `/proc`.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// Processor time (user and system, all threads, also ended ones) of the processes together.
pub fn cpu_time(pids: &[u32]) -> Result<Duration> {
    let mut ticks = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        ticks += ticks_of(&stat).with_context(|| format!("{path} has an unknown form"))?;
    }
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// Resident memory of the processes together, in bytes.
pub fn resident_bytes(pids: &[u32]) -> Result<u64> {
    let mut bytes = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        bytes += resident_of(&status).with_context(|| format!("{path} has no VmRSS"))?;
    }
    Ok(bytes)
}

/// utime and stime are fields 14 and 15; field 2, the name, may itself hold spaces and brackets.
fn ticks_of(stat: &str) -> Option<u64> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn resident_of(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 17727 0 0 0 40 24 7 8 20 0 8 0 1 2 3";
        assert_eq!(ticks_of(stat), Some(64));
        assert_eq!(ticks_of("42 (a"), None);
    }

    #[test]
    fn resident_memory_is_read_in_kib() {
        assert_eq!(
            resident_of("Name:\tx\nVmRSS:\t    1234 kB\n"),
            Some(1234 * 1024)
        );
        assert_eq!(resident_of("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_has_used_something() {
        let pids = [std::process::id()];
        assert!(resident_bytes(&pids).is_ok_and(|bytes| bytes > 0));
        assert!(cpu_time(&pids).is_ok());
    }
}
