//! What `cargo metadata` says about the workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The part of `cargo metadata`'s answer that the tasks use.
#[derive(Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
    pub(crate) target_directory: PathBuf,
    resolve: Option<Resolve>,
}

/// A package of the workspace or of a registry.
#[derive(Deserialize, Clone, Default)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) dependencies: Vec<Dependency>,
}

/// A line of a package's manifest.
#[derive(Deserialize, Clone, Default)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` is a normal dependency, else "dev" or "build".
    pub(crate) kind: Option<String>,
    #[serde(default)]
    pub(crate) optional: bool,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<NodeDep>,
}

#[derive(Deserialize)]
struct NodeDep {
    pkg: String,
    dep_kinds: Vec<DepKind>,
}

#[derive(Deserialize)]
struct DepKind {
    kind: Option<String>,
}

impl Metadata {
    /// The packages of this workspace.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }

    /// The members that contain one of `names`, at any depth, in what they build (tests included).
    pub(crate) fn members_with(&self, names: &[&str]) -> BTreeSet<String> {
        let nodes = self.resolve.as_ref().map_or(&[][..], |resolve| &resolve.nodes);
        let names_of: BTreeMap<&str, &str> =
            self.packages.iter().map(|one| (one.id.as_str(), one.name.as_str())).collect();
        let mut tainted: BTreeSet<&str> = self
            .packages
            .iter()
            .filter(|package| names.contains(&package.name.as_str()))
            .map(|package| package.id.as_str())
            .collect();
        // Each pass carries the taint one edge up; edges form no cycle but through
        // dev-dependencies.
        loop {
            let before = tainted.len();
            for node in nodes {
                if node.deps.iter().any(|dep| tainted.contains(dep.pkg.as_str())) {
                    tainted.insert(&node.id);
                }
            }
            if tainted.len() == before {
                break;
            }
        }
        self.workspace_members
            .iter()
            .filter(|id| tainted.contains(id.as_str()))
            .filter_map(|id| names_of.get(id.as_str()).map(|name| (*name).to_owned()))
            .collect()
    }

    /// What `member` contains, at any depth, in its own build (tests excluded).
    pub(crate) fn closure(&self, member: &str) -> BTreeSet<String> {
        let start = self.members().filter(|package| package.name == member);
        let start: Vec<String> = start.map(|package| package.id.clone()).collect();
        let is_built =
            |dep: &NodeDep| dep.dep_kinds.iter().any(|one| one.kind.as_deref() != Some("dev"));
        let seen = self.reach(start, is_built);
        let inside = self.packages.iter().filter(|package| seen.contains(&package.id));
        inside.map(|package| package.name.clone()).filter(|name| name != member).collect()
    }

    /// The IDs reached from `open` over the edges that `follows` accepts, `open` included.
    fn reach(&self, mut open: Vec<String>, follows: impl Fn(&NodeDep) -> bool) -> BTreeSet<String> {
        let nodes = self.resolve.as_ref().map_or(&[][..], |resolve| &resolve.nodes);
        let nodes: BTreeMap<&str, &Node> = nodes.iter().map(|one| (one.id.as_str(), one)).collect();
        let mut seen: BTreeSet<String> = open.iter().cloned().collect();
        while let Some(id) = open.pop() {
            let Some(node) = nodes.get(id.as_str()) else { continue };
            for dep in node.deps.iter().filter(|dep| follows(dep)) {
                if seen.insert(dep.pkg.clone()) {
                    open.push(dep.pkg.clone());
                }
            }
        }
        seen
    }
}

/// Asks cargo, without the optional features (they do not decide what a plain build needs).
///
/// # Errors
/// When cargo fails or answers something else than expected.
pub(crate) fn load() -> Result<Metadata> {
    load_with(&[])
}

/// Asks cargo, with all features.
///
/// # Errors
/// When cargo fails or answers something else than expected.
pub(crate) fn load_all_features() -> Result<Metadata> {
    load_with(&["--all-features"])
}

fn load_with(options: &[&str]) -> Result<Metadata> {
    let mut command = crate::process::cargo(&["metadata", "--format-version", "1"]);
    let output = command.args(options).output().context("start cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("read the answer of cargo metadata")
}

/// The packages ("name version") that a build on any platform with all features contains, tests
/// included. `cargo metadata` lists more: what would come with features that nobody switched on.
///
/// # Errors
/// When cargo fails.
pub(crate) fn built() -> Result<BTreeSet<String>> {
    let mut command = crate::process::cargo(&["tree", "--workspace", "--all-features"]);
    command.args(["--target", "all", "--prefix", "none", "--format", "{p}"]);
    let output = command.output().context("start cargo tree")?;
    if !output.status.success() {
        bail!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter_map(name_and_version).collect())
}

/// From a line of `cargo tree`: `name v1.2.3 (more)`.
fn name_and_version(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    Some(format!("{name} {version}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A workspace of `members` with their edges, for the rules' tests.
    pub(crate) fn sample(members: &[(&str, &[&str])]) -> Metadata {
        let packages: Vec<Package> = members
            .iter()
            .map(|(name, edges)| Package {
                id: (*name).into(),
                name: (*name).into(),
                version: "1.0.0".into(),
                license: Some("MIT".into()),
                description: Some("A sample".into()),
                dependencies: edges
                    .iter()
                    .map(|edge| Dependency { name: (*edge).into(), ..Dependency::default() })
                    .collect(),
                ..Package::default()
            })
            .collect();
        let nodes = members
            .iter()
            .map(|(name, edges)| Node {
                id: (*name).into(),
                deps: edges
                    .iter()
                    .map(|edge| NodeDep {
                        pkg: (*edge).into(),
                        dep_kinds: vec![DepKind { kind: None }],
                    })
                    .collect(),
            })
            .collect();
        Metadata {
            workspace_members: packages.iter().map(|package| package.id.clone()).collect(),
            packages,
            target_directory: PathBuf::new(),
            resolve: Some(Resolve { nodes }),
        }
    }

    #[test]
    fn a_line_of_the_tree_is_read() {
        assert_eq!(name_and_version("a v1.2.3 (*)"), Some("a 1.2.3".into()));
        assert_eq!(name_and_version(""), None);
    }

    #[test]
    fn taint_goes_up_and_closure_goes_down() {
        let metadata = sample(&[("a", &["b"]), ("b", &["c"]), ("c", &[]), ("d", &[])]);
        assert_eq!(metadata.members_with(&["c"]), ["a", "b", "c"].map(String::from).into());
        assert_eq!(metadata.closure("a"), ["b", "c"].map(String::from).into());
        assert!(metadata.closure("d").is_empty());
    }
}
