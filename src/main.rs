//! The binary: parse, dispatch, exit code. All three are [`tollgate::cli`]'s.

/// Requests allocate many small pieces; this allocator is made for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    tollgate::cli::run()
}
