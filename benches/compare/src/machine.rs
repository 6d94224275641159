//! The machine and the build that the figures come from.

use std::fs;
use std::thread;

use serde::Serialize;

/// The machine and the build.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    cores: usize,
    cpu: String,
    kernel: String,
    rustc: &'static str,
    allocator: &'static str,
    version: &'static str,
}

impl Machine {
    pub(crate) fn this() -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
        Self {
            cores: thread::available_parallelism().map_or(0, usize::from),
            cpu: model.unwrap_or("unknown").to_owned(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            rustc: env!("RUSTC_VERSION"),
            allocator: "the system's default",
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    pub(crate) fn text(&self) -> String {
        let Self { cores, cpu, kernel, rustc, allocator, version } = self;
        format!(
            "eventbroker {version}\n{cpu}, {cores} cores, Linux {kernel}\n{rustc}, release, fat LTO; allocator: {allocator}\n"
        )
    }
}
