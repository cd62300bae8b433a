//! Programs that are measured against, or that make the load.

/// Programs and the Debian packages that bring them.
// tidy: table
const PACKAGES: &[(&str, &str)] =
    &[("fio", "fio"), ("nbdkit", "nbdkit"), ("qemu-img", "qemu-utils"), ("qemu-nbd", "qemu-utils")];

/// Why a benchmark can't run here, with the cure; none when it can.
pub(super) fn missing(programs: &[&str]) -> Option<String> {
    programs.iter().find(|program| !crate::process::exists(program)).map(|program| {
        let package = PACKAGES.iter().find(|(name, _)| name == program).map(|(_, package)| package);
        match package {
            Some(package) => format!("{program} is missing: apt-get install {package}"),
            None => format!("{program} is missing"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn a_missing_program_is_named() {
        assert_eq!(missing(&["sh"]), None);
        let why = missing(&["sh", "no-such-program-anywhere"]).expect("it is missing");
        assert!(why.contains("no-such-program-anywhere"));
    }
}
