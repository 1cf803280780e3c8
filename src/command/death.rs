//! How a signal ended a command, and which of the command's limits may be the reason.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitStatus;
use std::time::Duration;

use crate::command::rlimit::{Resource, ResourceLimit};
use crate::signal::Signal;
use crate::sys::{ProcessUsage, signal_numbers};

type Limits = BTreeMap<Resource, ResourceLimit>;

/// Of a command that has ended without an exit code.
pub(super) fn describe(status: ExitStatus, elapsed: Duration, limits: &Limits, usage: Option<ProcessUsage>) -> String {
    let signal = Signal::from_exit_status(status);
    let by = signal.map_or_else(|| status.to_string(), |signal| signal.to_string());
    let mut text = format!("was ended by {by} after {elapsed:.1?}");
    if signal_numbers::dumped_core(status) {
        text += ", and dumped core";
    }
    if let Some(reason) = signal.and_then(|signal| reason(signal, limits, usage)) {
        let _ = write!(text, "{reason}");
    }
    text
}

fn reason(signal: Signal, limits: &Limits, usage: Option<ProcessUsage>) -> Option<String> {
    let soft = |resource| limits.get(&resource).and_then(|limit| limit.soft_limit());
    let limited = |what: &str, limit: u64, unit: &str| format!("{what} was limited to {}", counted(limit, unit));
    match signal {
        Signal::XCPU => {
            let cpu = soft(Resource::CpuTime).map(|limit| limited("its CPU time", limit, "second"));
            let realtime = soft(Resource::RealtimeTime)
                .map(|limit| limited("its CPU time without a blocking system call", limit, "microsecond"));
            let limits = [cpu, realtime].into_iter().flatten().collect::<Vec<_>>();
            (!limits.is_empty()).then(|| format!(" ({})", limits.join(", and ")))
        }
        Signal::XFSZ => {
            soft(Resource::FileSize).map(|limit| format!(" ({})", limited("the size of its files", limit, "byte")))
        }
        // Anybody can have sent it.
        Signal::KILL => {
            let hard = limits.get(&Resource::CpuTime)?.hard_limit()?;
            has_used_up(hard, usage?).then(|| format!(", perhaps because {}", limited("its CPU time", hard, "second")))
        }
        _ => None,
    }
}

/// The kernel compares the limit with a time that it samples at each tick of its clock. On a busy machine that can be ahead
/// of the usage: after one second, by six percent and more.
const SAMPLING_ERROR: Duration = Duration::from_millis(250);

fn has_used_up(seconds: u64, usage: ProcessUsage) -> bool {
    let limit = Duration::from_secs(seconds);
    let used = Duration::from_micros(usage.user_micros) + Duration::from_micros(usage.system_micros);
    used.saturating_add(SAMPLING_ERROR + limit / 20) >= limit
}

fn counted(number: u64, unit: &str) -> String {
    if number == 1 { format!("1 {unit}") } else { format!("{number} {unit}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(user_micros: u64, system_micros: u64) -> Option<ProcessUsage> {
        Some(ProcessUsage { user_micros, system_micros, max_memory_bytes: 0 })
    }

    fn reason_of(signal: Signal, limits: &[(Resource, ResourceLimit)], usage: Option<ProcessUsage>) -> String {
        reason(signal, &limits.iter().copied().collect(), usage).unwrap_or_default()
    }

    #[test]
    fn a_limit_is_named_for_its_own_signal() {
        let cpu = (Resource::CpuTime, ResourceLimit::new(2).soft(1));
        let realtime = (Resource::RealtimeTime, ResourceLimit::new(1000));
        let files = (Resource::FileSize, ResourceLimit::new(1000));
        let text = |signal, limits: &[_]| reason_of(signal, limits, None);
        assert_eq!(text(Signal::XCPU, &[cpu, files]), " (its CPU time was limited to 1 second)");
        assert_eq!(
            text(Signal::XCPU, &[cpu, realtime]),
            " (its CPU time was limited to 1 second, and its CPU time without a blocking system call was limited to 1000 \
             microseconds)"
        );
        assert_eq!(text(Signal::XFSZ, &[cpu, files]), " (the size of its files was limited to 1000 bytes)");
        assert_eq!(text(Signal::XFSZ, &[cpu]), "");
        assert_eq!(text(Signal::XCPU, &[files]), "");
        assert_eq!(text(Signal::XCPU, &[(Resource::CpuTime, ResourceLimit::unlimited())]), "");
        assert_eq!(text(Signal::TERM, &[cpu, realtime, files]), "");
    }

    #[test]
    fn sigkill_is_explained_by_used_time_alone() {
        let cpu = [(Resource::CpuTime, ResourceLimit::new(2).soft(1))];
        let text = |usage| reason_of(Signal::KILL, &cpu, usage);
        let named = ", perhaps because its CPU time was limited to 2 seconds";
        assert_eq!(text(usage(1_500_000, 500_000)), named);
        assert_eq!(text(usage(1_000_000, 800_000)), named);
        assert_eq!(text(usage(1_000_000, 500_000)), "");
        assert_eq!(text(None), "");
        assert_eq!(reason_of(Signal::KILL, &[(Resource::CpuTime, ResourceLimit::unlimited())], usage(9, 9)), "");
        assert_eq!(reason_of(Signal::KILL, &[(Resource::CpuTime, u64::MAX.into())], usage(9, 9)), "");
    }
}
