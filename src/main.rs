//! The binary: parse, dispatch, exit code. All three are [`tollgate::cli`]'s.

fn main() -> std::process::ExitCode {
    tollgate::cli::run()
}
