//! The `tollgate` program.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A request allocates a hundred times or so, small and short-lived: docs/PERFORMANCE.md has what it gives.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    tollgate::cli::main(std::env::args_os())
}
