//! Standard metrics of a process (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>). Only
//! Linux reports them.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;

/// Registers `process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_virtual_memory_bytes`,
/// `process_open_fds`, `process_max_fds`, `process_threads` and `process_start_time_seconds`, as far as the system
/// reports them.
///
/// The admin listener includes them. A program with its own collector for them does not need this function.
pub fn register_process(registry: &mut Registry) {
    registry.register_collector(Box::new(ProcessCollector));
}

/// Metrics of this process. `None` if the system does not report one.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct ProcessMetrics {
    cpu_seconds: Option<f64>,
    resident_bytes: Option<u64>,
    virtual_bytes: Option<u64>,
    open_fds: Option<u64>,
    threads: Option<u64>,
    max_fds: Option<u64>,
    /// Start time, in seconds since the Unix epoch.
    start_seconds: Option<f64>,
}

#[derive(Debug)]
struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let read_metrics = platform::read_metrics();
        if let Some(seconds) = read_metrics.cpu_seconds {
            let seconds = ConstCounter::new(seconds);
            let help = "User and system CPU time of the process, in seconds.";
            let (unit, metric_type) = (Some(&Unit::Seconds), seconds.metric_type());
            seconds.encode(encoder.encode_descriptor("process_cpu", help, unit, metric_type)?)?;
        }
        let bytes = Some(&Unit::Bytes);
        for (name, help, unit, value) in [
            (
                "process_resident_memory",
                "Resident memory of the process, in bytes.",
                bytes,
                read_metrics.resident_bytes,
            ),
            (
                "process_virtual_memory",
                "Virtual memory of the process, in bytes.",
                bytes,
                read_metrics.virtual_bytes,
            ),
            (
                "process_open_fds",
                "File descriptors that the process has open.",
                None,
                read_metrics.open_fds,
            ),
            (
                "process_threads",
                "Threads of the process.",
                None,
                read_metrics.threads,
            ),
            (
                "process_max_fds",
                "Maximum number of file descriptors that the process may have open.",
                None,
                read_metrics.max_fds,
            ),
        ] {
            if let Some(value) = value {
                let value = ConstGauge::new(value);
                value.encode(encoder.encode_descriptor(
                    name,
                    help,
                    unit,
                    value.metric_type(),
                )?)?;
            }
        }
        if let Some(seconds) = read_metrics.start_seconds {
            let seconds = ConstGauge::new(seconds);
            let help = "Start time of the process, in seconds since the Unix epoch.";
            let (unit, metric_type) = (Some(&Unit::Seconds), seconds.metric_type());
            let name = "process_start_time";
            seconds.encode(encoder.encode_descriptor(name, help, unit, metric_type)?)?;
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
mod platform {
    use super::ProcessMetrics;
    use rustix::param::{clock_ticks_per_second, page_size};
    use rustix::process::{Resource, getrlimit};
    use std::fs;

    /// Returns the current values.
    pub(super) fn read_metrics() -> ProcessMetrics {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let machine = fs::read_to_string("/proc/stat").unwrap_or_default();
        ProcessMetrics {
            // Reading the folder opens a file too.
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|files| (files.count() as u64).saturating_sub(1)),
            max_fds: getrlimit(Resource::Nofile).current,
            ..parse(&stat, &machine)
        }
    }

    /// Parses `/proc/self/stat` (proc_pid_stat(5)), and the boot time in `/proc/stat`.
    pub(super) fn parse(stat: &str, machine: &str) -> ProcessMetrics {
        // The second field is the program's name in parentheses. It may contain spaces and parentheses.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        // Fields are numbered from one, and the first one here is the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let seconds = |ticks: u64| ticks as f64 / clock_ticks_per_second() as f64;
        let (user, system) = (field(14), field(15));
        let booted = machine
            .lines()
            .find_map(|line| line.strip_prefix("btime ")?.trim().parse::<u64>().ok());
        ProcessMetrics {
            cpu_seconds: user
                .zip(system)
                .map(|(user, system)| seconds(user + system)),
            start_seconds: field(22)
                .zip(booted)
                .map(|(ticks, booted)| booted as f64 + seconds(ticks)),
            threads: field(20),
            virtual_bytes: field(23),
            resident_bytes: field(24).map(|pages| pages * page_size() as u64),
            ..ProcessMetrics::default()
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    /// Returns no values: this system reports none.
    pub(super) fn read_metrics() -> super::ProcessMetrics {
        super::ProcessMetrics::default()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_every_figure() {
        let ProcessMetrics {
            cpu_seconds,
            resident_bytes,
            virtual_bytes,
            open_fds,
            threads,
            max_fds,
            start_seconds,
        } = platform::read_metrics();
        assert!(cpu_seconds.is_some() && start_seconds > Some(0.0));
        assert!(resident_bytes > Some(0) && virtual_bytes > resident_bytes);
        assert!(open_fds > Some(0) && max_fds > open_fds && threads > Some(0));
    }

    #[test]
    fn a_program_may_have_any_name() {
        let rest = "R 1 1 1 0 -1 0 0 0 0 0 200 100 0 0 20 0 1 0 500 8192 3 0";
        let stat = format!("7 (a) R (b) {rest}");
        let read_metrics = platform::parse(&stat, "cpu 1 2\nbtime 1000\n");
        assert_eq!(read_metrics.virtual_bytes, Some(8192));
        assert_eq!(
            read_metrics.resident_bytes,
            Some(3 * rustix::param::page_size() as u64)
        );
        assert!(read_metrics.cpu_seconds > Some(0.0) && read_metrics.start_seconds > Some(1000.0));
        assert_eq!(platform::parse("", ""), ProcessMetrics::default());
        assert_eq!(platform::parse("7 (a", "btime"), ProcessMetrics::default());
    }
}
