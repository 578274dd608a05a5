//! CPU time and memory of processes, from /proc; so on Linux only.

use std::fs;
use std::str::FromStr;

/// Ticks of /proc a second: part of Linux's interface to programs.
const TICKS_PER_SECOND: u64 = 100;

/// Which processes a figure is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// The process of that id.
    Pid(u32),
    /// Every process whose program has that name, this one excepted.
    Program(String),
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Named, String> {
        let is_name = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        match text.parse() {
            Ok(pid) if pid > 0 => Ok(Named::Pid(pid)),
            Err(_) if is_name(text) => Ok(Named::Program(text.to_owned())),
            _ => Err("expected a process id, or a program's name such as redis-server".to_owned()),
        }
    }
}

/// Processes whose CPU is watched together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// As given.
    pub name: String,
    pids: Vec<u32>,
}

impl Watched {
    /// This process.
    pub fn this() -> Watched {
        Watched { name: "loadtest".to_owned(), pids: vec![std::process::id()] }
    }

    /// Finds the processes; an error where there is none.
    pub fn find(named: &Named) -> Result<Watched, String> {
        match named {
            Named::Pid(pid) => {
                let program =
                    program(*pid).ok_or_else(|| format!("no process has the id {pid}"))?;
                Ok(Watched { name: format!("{program} {pid}"), pids: vec![*pid] })
            }
            Named::Program(name) => {
                // The system keeps the first 15 bytes of a name.
                let kept: String = name.chars().take(15).collect();
                let own = std::process::id();
                let is_it = |pid: &u32| *pid != own && program(*pid).is_some_and(|p| p == kept);
                let pids: Vec<u32> = all().into_iter().filter(is_it).collect();
                match pids.is_empty() {
                    true => Err(format!("no process is named {name}")),
                    false => Ok(Watched { name: name.clone(), pids }),
                }
            }
        }
    }

    /// CPU time since they started, in nanoseconds, to 10 ms; `None` once one of them has ended.
    pub fn cpu_nanos(&self) -> Option<u64> {
        self.pids.iter().map(|pid| cpu_nanos(*pid)).sum()
    }
}

/// CPU time of a process, user and system, in nanoseconds, to 10 ms.
pub fn cpu_nanos(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything: the fields begin behind its last parenthesis, with the third.
    let (_, fields) = stat.rsplit_once(')')?;
    let field = |number: usize| fields.split_whitespace().nth(number - 3)?.parse::<u64>().ok();
    Some((field(14)? + field(15)?) * (1_000_000_000 / TICKS_PER_SECOND))
}

/// Memory of a process in KiB: resident now, and at most since it started.
pub fn memory_kib(pid: u32) -> Option<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches("kB").trim().parse().ok()
    };
    Some((line("VmRSS:")?, line("VmHWM:")?))
}

fn program(pid: u32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned())
}

fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return vec![] };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_cpu_and_memory() {
        let this = Watched::this();
        let before = this.cpu_nanos().expect("this process");
        let mut sum = 0_u64;
        while this.cpu_nanos().is_some_and(|now| now == before) {
            sum = sum.wrapping_add(1);
        }
        let (resident, most) = memory_kib(std::process::id()).expect("this process");
        assert!(resident > 0 && most >= resident, "{resident} {most}");
    }

    #[test]
    fn processes_are_found_by_id_and_by_name() {
        let own = std::process::id();
        let found = Watched::find(&Named::Pid(own)).expect("this process");
        assert_eq!(found.pids, [own]);
        let nobody = "no-such-program".parse().expect("a name");
        assert_eq!(Watched::find(&nobody), Err("no process is named no-such-program".to_owned()));
        assert_eq!("12".parse(), Ok(Named::Pid(12)));
        for text in ["", "0", "a/b", "a b"] {
            assert!(text.parse::<Named>().is_err(), "{text:?}");
        }
    }
}
