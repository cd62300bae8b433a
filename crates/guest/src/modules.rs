//! Which modules a guest loads, and in which order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::io_error;
use crate::{GuestError, Kernel};

/// A module to load.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Module {
    /// Its name, for example `dm_mod`.
    pub(crate) name: String,
    /// Where it is, maybe compressed.
    pub(crate) file: PathBuf,
}

/// The lists that `depmod` has written.
#[derive(Debug, Default)]
struct Lists {
    /// Name → file below the modules' folder, and the files it needs.
    modules: BTreeMap<String, (String, Vec<String>)>,
    builtin: Vec<String>,
    /// Alias → names; only those without wild cards.
    aliases: BTreeMap<String, Vec<String>>,
    /// Name → names or aliases that are to be there first.
    before: BTreeMap<String, Vec<String>>,
}

/// `wanted` and everything they need, each after what it needs; what is built in is left out.
///
/// # Errors
/// [`GuestError::NoModule`] for a name that the kernel has neither as a file nor built in.
pub(crate) fn resolve(kernel: &Kernel, wanted: &[String]) -> Result<Vec<Module>, GuestError> {
    let root = kernel.modules();
    let read = |file: &str| {
        let path = root.join(file);
        std::fs::read_to_string(&path).map_err(io_error("read", path))
    };
    let lists = Lists::parse(
        &read("modules.dep")?,
        &read("modules.builtin")?,
        &read("modules.alias")?,
        &read("modules.softdep")?,
    );
    let mut order = Vec::new();
    for name in wanted {
        if !lists.add(name, &mut order) {
            let release = kernel.release().to_owned();
            return Err(GuestError::NoModule { release, module: name.clone() });
        }
    }
    Ok(order.into_iter().map(|name| Module { file: root.join(lists.file(&name)), name }).collect())
}

/// The module's bytes as the kernel takes them.
pub(crate) fn content(file: &Path) -> Result<Vec<u8>, GuestError> {
    if file.extension().is_none_or(|extension| extension == "ko") {
        return std::fs::read(file).map_err(io_error("read", file));
    }
    // Kernels without in-kernel decompression leave it to the loader, and busybox's knows less than
    // the xz of this machine.
    let program = if file.extension().is_some_and(|e| e == "zst") { "zstd" } else { "xz" };
    let output = Command::new(program)
        .args(["-d", "-c"])
        .arg(file)
        .output()
        .map_err(io_error("start", program))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(GuestError::Tool { program, message })
}

/// The name under which the kernel knows the module in `file`.
fn name_of(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    base.split(".ko").next().unwrap_or(base).replace('-', "_")
}

impl Lists {
    fn parse(dependencies: &str, builtin: &str, aliases: &str, softdeps: &str) -> Self {
        let mut lists = Self::default();
        for (file, needs) in dependencies.lines().filter_map(|line| line.split_once(':')) {
            let needs = needs.split_whitespace().map(name_of).collect();
            lists.modules.insert(name_of(file), (file.to_owned(), needs));
        }
        lists.builtin = builtin.lines().map(name_of).collect();
        for line in aliases.lines() {
            let mut words = line.split_whitespace().skip(1);
            if let (Some(alias), Some(name)) = (words.next(), words.next())
                && !alias.contains('*')
            {
                lists.aliases.entry(alias.to_owned()).or_default().push(name.replace('-', "_"));
            }
        }
        for line in softdeps.lines().filter_map(|line| line.strip_prefix("softdep ")) {
            let Some((name, rest)) = line.split_once(' ') else { continue };
            let Some((_, before)) = rest.split_once("pre:") else { continue };
            let before = before.split("post:").next().unwrap_or_default();
            let names = before.split_whitespace().map(str::to_owned).collect();
            lists.before.insert(name.replace('-', "_"), names);
        }
        lists
    }

    fn file(&self, name: &str) -> &str {
        self.modules.get(name).map_or("", |(file, _)| file)
    }

    /// Adds `name` behind what it needs; false when the kernel does not have it.
    fn add(&self, name: &str, order: &mut Vec<String>) -> bool {
        let name = name.replace('-', "_");
        if order.contains(&name) || self.builtin.contains(&name) {
            return true;
        }
        let Some((_, needs)) = self.modules.get(&name) else { return false };
        for soft in self.before.get(&name).into_iter().flatten() {
            // A soft need names an algorithm that several modules offer; those that are missing are
            // no loss.
            let offers = self.aliases.get(soft).cloned().unwrap_or_else(|| vec![soft.clone()]);
            for offer in offers.iter().filter(|offer| !is_for_other_processors(offer)) {
                self.add(offer, order);
            }
        }
        for need in needs.iter().rev() {
            self.add(need, order);
        }
        order.push(name);
        true
    }
}

/// Modules that refuse to load where the processor lacks an instruction: the generic one is enough.
fn is_for_other_processors(name: &str) -> bool {
    ["intel", "pclmul", "avx", "ssse3", "sse2", "aesni"].iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists() -> Lists {
        Lists::parse(
            "kernel/fs/xfs/xfs.ko: kernel/lib/libcrc32c.ko\n\
             kernel/lib/libcrc32c.ko:\n\
             kernel/crypto/crc32c_generic.ko:\n\
             kernel/arch/x86/crypto/crc32c-intel.ko:\n\
             kernel/drivers/md/dm-mod.ko.xz: kernel/drivers/dax/dax.ko.xz\n\
             kernel/drivers/dax/dax.ko.xz:\n",
            "kernel/fs/ext4/ext4.ko\n",
            "alias crc32c crc32c_generic\nalias crc32c crc32c-intel\nalias pci:v*d* other\n",
            "# text\nsoftdep libcrc32c pre: crc32c post: other\n",
        )
    }

    #[test]
    fn needs_come_first_and_once() {
        let mut order = Vec::new();
        assert!(lists().add("xfs", &mut order) && lists().add("dm-mod", &mut order));
        assert!(lists().add("dm_mod", &mut order) && lists().add("ext4", &mut order));
        assert_eq!(order, ["crc32c_generic", "libcrc32c", "xfs", "dax", "dm_mod"]);
        assert_eq!(lists().file("dm_mod"), "kernel/drivers/md/dm-mod.ko.xz");
    }

    #[test]
    fn an_unknown_module_is_refused() {
        assert!(!lists().add("no_such_module", &mut Vec::new()));
    }
}
