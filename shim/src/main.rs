//! `containerd-shim-tare-v2`: not built yet; it says so instead of answering containerd wrongly.

fn main() -> std::process::ExitCode {
    eprintln!(
        "containerd-shim-tare-v2: the shim is not built yet; \
         use containerd-shim-runc-v2 with BinaryName set to the path of tare"
    );
    std::process::ExitCode::FAILURE
}
