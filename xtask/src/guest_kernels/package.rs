//! Names of Debian's kernel packages.

use std::collections::BTreeMap;

/// A package that holds a kernel, by its name: `linux-image-VERSION[-FLAVOR]-amd64`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct KernelPackage {
    pub(crate) name: String,
    /// For example `6.12`.
    series: String,
    /// `cloud`, `rt` or `generic`.
    flavor: String,
    /// The numbers of the version, in their order.
    version: Vec<u64>,
}

impl KernelPackage {
    /// `None` for what is no kernel of a certain version: packages that only depend on one, and
    /// images without Debian's signature.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let middle = name.strip_prefix("linux-image-")?.strip_suffix("-amd64")?;
        let (version, flavor) = match middle.rsplit_once('-') {
            Some((version, flavor @ ("cloud" | "rt"))) => (version, flavor),
            _ => (middle, "generic"),
        };
        let numbers: Vec<u64> =
            version.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        // A package for the newest of a series has no more than two.
        let (&[major, minor, _, ..], true) =
            (numbers.as_slice(), version.starts_with(|c: char| c.is_ascii_digit()))
        else {
            return None;
        };
        Some(Self {
            name: name.to_owned(),
            series: format!("{major}.{minor}"),
            flavor: flavor.to_owned(),
            version: numbers,
        })
    }

    /// The folder that it is unpacked to.
    pub(crate) fn folder(&self) -> String {
        format!("{}-{}", self.series, self.flavor)
    }
}

/// The newest of each series and flavor.
pub(crate) fn newest(names: &[String]) -> Vec<KernelPackage> {
    let mut found: BTreeMap<String, KernelPackage> = BTreeMap::new();
    for package in names.iter().filter_map(|name| KernelPackage::parse(name)) {
        let known = found.entry(package.folder()).or_insert_with(|| package.clone());
        if known.version < package.version {
            *known = package;
        }
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_each_series_and_flavor() {
        let names = [
            "linux-image-amd64",
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-56-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12.95+deb12-cloud-amd64",
            "linux-image-6.12.95+deb12-rt-amd64",
            "linux-image-6.12.95+deb12-amd64-dbg",
            "linux-image-6.1.0-56-cloud-amd64-unsigned",
        ];
        let found = newest(&names.map(str::to_owned));
        let found: Vec<_> = found.iter().map(|p| (p.folder(), p.name.as_str())).collect();
        let expected = [
            ("6.1-cloud", "linux-image-6.1.0-56-cloud-amd64"),
            ("6.1-generic", "linux-image-6.1.0-56-amd64"),
            ("6.12-cloud", "linux-image-6.12.117+deb12-cloud-amd64"),
            ("6.12-rt", "linux-image-6.12.95+deb12-rt-amd64"),
        ];
        assert_eq!(found, expected.map(|(folder, name)| (folder.to_owned(), name)));
    }
}
