//! The house rules that a machine can hold: who may import whom, file sizes, what may come in, what may not be written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use comptoir::telemetry::Code;

/// Room -> rooms it may import beside the ground (design: the house).
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("config", &[]),
    ("telemetry", &["config"]),
    ("store", &["config", "telemetry"]),
    ("wan", &["config", "telemetry", "store"]),
    (
        "lan",
        &[
            "config",
            "telemetry",
            "store",
            "devices",
            "update",
            "wan::contract",
            "wan::time",
        ],
    ),
    (
        "devices",
        &["config", "telemetry", "store", "lan::discovery"],
    ),
    ("update", &["config", "telemetry", "store"]),
    ("supervisor", &["config", "telemetry"]),
];

const GROUND: &[&str] = &[
    "backoff", "clock", "digest", "durable", "identity", "language", "shutdown", "units", "version",
];

/// Rooms that may import everything.
const WIRING: &[&str] = &["diagnose", "cli", "daemon", "main", "lib"];

/// Lines of a file without its tests.
const MAX_LINES: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn tracked_files() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "-co", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the project's files");
    let files: Vec<PathBuf> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(PathBuf::from)
        .filter(|file| root().join(file).is_file())
        .collect();
    assert!(files.len() > 20, "git lists only {} files", files.len());
    files
}

fn rust_files(under: &str) -> Vec<(PathBuf, String)> {
    tracked_files()
        .into_iter()
        .filter(|file| file.starts_with(under) && file.extension().is_some_and(|e| e == "rs"))
        .map(|file| {
            let text = fs::read_to_string(root().join(&file)).unwrap();
            (file, text)
        })
        .collect()
}

/// The file without its unit tests and comments.
fn product_lines(text: &str) -> Vec<&str> {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .collect()
}

/// `crate::a::b…` mentions of a line, as `a::b`.
fn crate_paths(line: &str) -> Vec<String> {
    line.split("crate::")
        .skip(1)
        .map(|rest| {
            rest.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .collect()
}

#[test]
fn rooms_import_only_what_the_design_allows() {
    let allowed: BTreeMap<_, _> = MAY_IMPORT.iter().copied().collect();
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for (file, text) in rust_files("src") {
        let room = file
            .components()
            .nth(1)
            .map(|part| {
                part.as_os_str()
                    .to_string_lossy()
                    .trim_end_matches(".rs")
                    .to_owned()
            })
            .unwrap();
        if WIRING.contains(&room.as_str()) || file.ends_with("tests.rs") {
            continue;
        }
        seen.insert(room.clone());
        for line in product_lines(&text) {
            let code = line.split("//").next().unwrap_or_default();
            for path in crate_paths(code) {
                let target = path.split("::").next().unwrap_or_default();
                let fits = target == room
                    || GROUND.contains(&target)
                    || allowed.get(room.as_str()).is_some_and(|rooms| {
                        rooms
                            .iter()
                            .any(|may| path == *may || path.starts_with(&format!("{may}::")))
                    });
                if !fits {
                    wrong.push(format!(
                        "{}: {} may not import {path}",
                        file.display(),
                        room
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (room, _) in MAY_IMPORT {
        assert!(seen.contains(*room), "no file of the room {room} was read");
    }
}

#[test]
fn files_stay_small() {
    let mut long = Vec::new();
    for (file, text) in rust_files("src").into_iter().chain(rust_files("tests")) {
        let lines = product_lines(&text).len();
        if lines > MAX_LINES {
            long.push(format!("{}: {lines} lines", file.display()));
        }
    }
    assert!(
        long.is_empty(),
        "over {MAX_LINES} lines:\n{}",
        long.join("\n")
    );
}

#[test]
fn one_way_in_and_one_way_out() {
    let mut wrong = Vec::new();
    for (file, text) in rust_files("src") {
        let name = file.to_string_lossy().into_owned();
        for line in product_lines(&text) {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains("ureq::") && !name.starts_with("src/wan/") {
                wrong.push(format!("{name}: only wan/ speaks to the internet: {line}"));
            }
            let makes_agents = code.contains("Agent::new") || code.contains("Agent::with_parts");
            if makes_agents && !name.starts_with("src/wan/egress") {
                wrong.push(format!("{name}: only wan/egress makes HTTP agents: {line}"));
            }
            let may_verify = name == "src/wan/egress/tls.rs";
            let verifies = [".dangerous()", "ServerCertVerifier", "disable_verification"];
            if !may_verify && verifies.iter().any(|word| code.contains(word)) {
                wrong.push(format!(
                    "{name}: TLS is verified in one place, and always: {line}"
                ));
            }
            if code.contains("thread::sleep") {
                wrong.push(format!("{name}: a bare sleep can't be shut down: {line}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_comes_in_is_what_deny_toml_allows() {
    let deny: toml::Table = fs::read_to_string(root().join("deny.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let list = |table: &str, key: &str| deny[table][key].as_array().unwrap().clone();
    let banned: Vec<String> = list("bans", "deny")
        .iter()
        .map(|ban| ban["name"].as_str().unwrap().to_owned())
        .collect();
    let licences: Vec<String> = list("licenses", "allow")
        .iter()
        .map(|licence| licence.as_str().unwrap().to_owned())
        .collect();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args(["--filter-platform", "aarch64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let product = product_packages(&metadata);
    assert!(
        product.len() > 30,
        "only {} packages were found",
        product.len()
    );
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        if !product.contains(package["id"].as_str().unwrap()) {
            continue;
        }
        if banned.iter().any(|ban| ban == name) {
            wrong.push(format!("{name} is banned"));
        }
        let licence = package["license"].as_str().unwrap_or("none");
        let fits = licence.replace('/', " OR ").split(" OR ").any(|choice| {
            choice.split(" AND ").all(|part| {
                licences
                    .iter()
                    .any(|l| l == part.trim_matches(|c| "() ".contains(c)))
            })
        });
        if !fits {
            wrong.push(format!("{name}: the licence {licence} is not in deny.toml"));
        }
        let source = package["source"].as_str().unwrap_or("path");
        if source != "path" && !source.starts_with("registry+") {
            wrong.push(format!("{name} comes from {source}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Ids of all packages that the product itself links or builds with (not the tests' and the emulators').
fn product_packages(metadata: &serde_json::Value) -> BTreeSet<String> {
    let nodes: BTreeMap<&str, &serde_json::Value> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    let mut open = vec![metadata["resolve"]["root"].as_str().unwrap().to_owned()];
    let mut found = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !found.insert(id.clone()) {
            continue;
        }
        for dependency in nodes[id.as_str()]["deps"].as_array().unwrap() {
            let in_product = dependency["dep_kinds"]
                .as_array()
                .unwrap()
                .iter()
                .any(|kind| kind["kind"] != "dev");
            if in_product {
                open.push(dependency["pkg"].as_str().unwrap().to_owned());
            }
        }
    }
    found
}

/// A condition that nobody raises, or that no test names, is one the shop would never see.
#[test]
fn every_condition_is_raised_somewhere_and_named_in_a_test() {
    const LISTS: [&str; 2] = ["src/telemetry/conditions.rs", "src/lan/status.rs"];
    let (mut product, mut tests) = (String::new(), String::new());
    for (file, text) in rust_files("src") {
        if LISTS.iter().any(|list| file == Path::new(list)) {
            continue;
        }
        let is_test = file.components().any(|part| part.as_os_str() == "tests");
        let all_tests = is_test || file.ends_with("tests.rs");
        let (code, own_tests) = match text.split_once("#[cfg(test)]\nmod tests {") {
            _ if all_tests => ("", &*text),
            Some(parts) => parts,
            None => (&*text, ""),
        };
        product.push_str(code);
        tests.push_str(own_tests);
    }
    for (_, text) in rust_files("tests") {
        tests.push_str(&text);
    }
    let names = |text: &str, code: Code| text.contains(&format!("::{code:?}"));
    let unraised: Vec<_> = Code::ALL
        .iter()
        .filter(|code| !names(&product, **code))
        .collect();
    assert!(unraised.is_empty(), "raised nowhere: {unraised:?}");
    let untested: Vec<_> = Code::ALL
        .iter()
        .filter(|code| !names(&tests, **code) && !tests.contains(code.as_str()))
        .collect();
    assert!(untested.is_empty(), "in no test: {untested:?}");
}
