//! The checks: which crate may use which, how long files are, where `unsafe` is, which words are not written.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

/// Which of the workspace's crates each crate may name in its normal dependencies. The arrows only go down.
const ARROWS: &[(&str, &[&str])] = &[
    ("honshu-domain", &[]),
    ("honshu-wire", &["honshu-domain"]),
    ("honshu-signature", &["honshu-domain"]),
    ("honshu-egress", &["honshu-domain"]),
    ("honshu-policy", &["honshu-domain"]),
    ("honshu-store", &["honshu-domain"]),
    ("honshu-models", &["honshu-domain", "honshu-egress"]),
    (
        "honshu-engine",
        &["honshu-domain", "honshu-models", "honshu-wire"],
    ),
    (
        "honshu-provider",
        &[
            "honshu-domain",
            "honshu-egress",
            "honshu-signature",
            "honshu-wire",
        ],
    ),
    // Not the store, not the engine, not the providers: only the seams of the domain.
    ("honshu-gateway", &["honshu-domain", "honshu-policy"]),
    (
        "honshu-control",
        &[
            "honshu-domain",
            "honshu-policy",
            "honshu-signature",
            "honshu-store",
            "honshu-wire",
        ],
    ),
    // Only the seams of the domain, as the gateway.
    (
        "honshu-responses",
        &["honshu-domain", "honshu-gateway", "honshu-wire"],
    ),
    // The only crate that knows the HTTP framework; it cannot name the store.
    (
        "honshu-api",
        &[
            "honshu-control",
            "honshu-domain",
            "honshu-gateway",
            "honshu-policy",
            "honshu-responses",
            "honshu-signature",
            "honshu-wire",
        ],
    ),
    (
        "honshu-server",
        &[
            "honshu-api",
            "honshu-control",
            "honshu-domain",
            "honshu-egress",
            "honshu-engine",
            "honshu-gateway",
            "honshu-models",
            "honshu-policy",
            "honshu-provider",
            "honshu-responses",
            "honshu-signature",
            "honshu-store",
        ],
    ),
    (
        "honshu-cli",
        &[
            "honshu-control",
            "honshu-domain",
            "honshu-egress",
            "honshu-engine",
            "honshu-models",
            "honshu-policy",
            "honshu-server",
            "honshu-signature",
            "honshu-wire",
        ],
    ),
    (
        "honshu-testkit",
        &[
            "honshu-domain",
            "honshu-gateway",
            "honshu-policy",
            "honshu-provider",
            "honshu-wire",
        ],
    ),
    // Stands outside of what it measures.
    ("honshu-bench", &[]),
    ("xtask", &[]),
];

/// Crates that may name the HTTP framework.
const AXUM: &[&str] = &["honshu-api"];

/// Files that may hold `unsafe`, because an interface in C asks for it.
const UNSAFE: &[&str] = &[
    "crates/honshu-engine/src/sys/",
    // An allocator is unsafe by its trait, and this test has to see allocations.
    "crates/honshu-models/tests/it/hostile.rs",
];

const LINES_MAX: usize = 800;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

/// Every problem found in the checkout at `root`.
pub(crate) fn check(root: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut problems = Vec::new();
    arrows(root, &mut problems)?;
    let files = tracked(root)?;
    for file in &files {
        let Ok(text) = std::fs::read_to_string(root.join(file)) else {
            continue;
        };
        lines(file, &text, &mut problems);
        unsafe_code(file, &text, &mut problems);
        words(file, &text, &mut problems);
    }
    translations(&files, &mut problems);
    Ok(problems)
}

fn arrows(root: &Path, problems: &mut Vec<String>) -> Result<(), Box<dyn Error>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--locked"])
        .current_dir(root)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    for package in &metadata.packages {
        let Some(allowed) = allowed.get(package.name.as_str()) else {
            problems.push(format!(
                "crate `{}` has no arrows; give it a line in xtask/src/tidy.rs and a place in ARCHITECTURE.md",
                package.name
            ));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| d.kind.is_none()) {
            let name = dependency.name.as_str();
            if name.starts_with("honshu-") && !allowed.contains(&name) {
                problems.push(format!(
                    "crate `{}` may not name `{name}`: arrows only go down (ARCHITECTURE.md)",
                    package.name
                ));
            }
            if name == "axum" && !AXUM.contains(&package.name.as_str()) {
                problems.push(format!(
                    "crate `{}` names `axum`; only honshu-api knows the HTTP framework",
                    package.name
                ));
            }
        }
    }
    Ok(())
}

fn tracked(root: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect())
}

fn lines(file: &str, text: &str, problems: &mut Vec<String>) {
    let source = [".rs", ".py", ".mjs", ".ts", ".svelte"]
        .iter()
        .any(|ending| file.ends_with(ending));
    let count = text.lines().count();
    if source && count > LINES_MAX {
        problems.push(format!(
            "{file} has {count} lines, more than {LINES_MAX}: split it by what its parts change for"
        ));
    }
}

fn unsafe_code(file: &str, text: &str, problems: &mut Vec<String>) {
    if !file.ends_with(".rs") || UNSAFE.iter().any(|allowed| file.starts_with(allowed)) {
        return;
    }
    let opening = ["unsafe", " {"].concat();
    let function = ["unsafe", " fn"].concat();
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        if code.contains(&opening) || code.contains(&function) {
            problems.push(format!(
                "{file}:{}: unsafe code outside the engine's C layer",
                index + 1
            ));
        }
    }
}

/// Words that tell of the machine something was written on rather than of Honshu.
fn words(file: &str, text: &str, problems: &mut Vec<String>) {
    // Test data holds bytes that others send.
    if file.starts_with("testdata/") {
        return;
    }
    if file.ends_with("Cargo.lock") || file.ends_with("package-lock.json") || file == "LICENSE" {
        return;
    }
    // They are put together here, so that this file does not hold them.
    let forbidden: Vec<String> = [
        ["/wo", "rk/"],
        ["/ro", "ot/"],
        ["/ho", "me/"],
        ["sha", "red/"],
        ["crates", ".io"],
        ["pypi", ".org"],
        ["pythonhosted", ".org"],
        ["registry.npmjs", ".org"],
        ["deb.debian", ".org"],
        ["FIX", "ME"],
        ["XX", "X"],
        ["unimple", "mented!("],
        ["to", "do!("],
        ["#[ign", "ore]"],
    ]
    .iter()
    .map(|parts| parts.concat())
    .collect();
    for (index, line) in text.lines().enumerate() {
        if names_an_issue(line) {
            problems.push(format!(
                "{file}:{}: numbers of issues are not written here; say what it is about",
                index + 1
            ));
        }
        for word in &forbidden {
            if line.contains(word.as_str()) {
                problems.push(format!(
                    "{file}:{}: `{word}` is not written here",
                    index + 1
                ));
            }
        }
    }
}

/// Whether a line names an issue by its number, which nobody can look up who has only the repository.
fn names_an_issue(line: &str) -> bool {
    let lower = line.to_ascii_lowercase();
    lower.match_indices("issue").any(|(at, word)| {
        let rest = lower[at + word.len()..].trim_start_matches([' ', '#']);
        // The plural and words such as `issuer` go on with a letter.
        rest.len() < lower.len() - at - word.len()
            && rest.starts_with(|first: char| first.is_ascii_digit())
    })
}

/// Each page of the English guide has its Japanese twin.
fn translations(files: &[String], problems: &mut Vec<String>) {
    for file in files {
        if let Some(page) = file.strip_prefix("docs/en/") {
            let twin = format!("docs/ja/{page}");
            if !files.contains(&twin) {
                problems.push(format!("{file} has no Japanese page {twin}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_code_outside_the_engine_is_found_and_comments_are_not() {
        let mut problems = Vec::new();
        let text = [
            "fn f() { unsafe",
            " { g() } }\n// unsafe",
            " { in words }\n",
        ]
        .concat();
        unsafe_code("crates/honshu-wire/src/lib.rs", &text, &mut problems);
        unsafe_code("crates/honshu-engine/src/sys/mod.rs", &text, &mut problems);
        assert_eq!(problems.len(), 1, "{problems:?}");
    }

    #[test]
    fn long_files_and_machine_paths_are_found() {
        let mut problems = Vec::new();
        lines("a.rs", &"x\n".repeat(801), &mut problems);
        lines("a.md", &"x\n".repeat(801), &mut problems);
        words("a.md", &["see /wo", "rk/main"].concat(), &mut problems);
        assert_eq!(problems.len(), 2, "{problems:?}");
    }

    #[test]
    fn numbers_of_issues_are_found_and_other_words_are_not() {
        for line in [["see iss", "ue 12"], ["// Iss", "ue #3: why"]] {
            assert!(names_an_issue(&line.concat()), "{line:?}");
        }
        for line in [
            "an issuer of 2 tokens",
            "the issue is 3 bytes",
            "issues 5",
            "issue",
        ] {
            assert!(!names_an_issue(line), "{line}");
        }
    }

    #[test]
    fn an_english_page_needs_its_japanese_twin() {
        let mut problems = Vec::new();
        let files = ["docs/en/a.md", "docs/en/b.md", "docs/ja/a.md"].map(str::to_owned);
        translations(&files, &mut problems);
        assert_eq!(problems.len(), 1, "{problems:?}");
    }
}
