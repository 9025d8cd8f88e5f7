//! Manual pages and completions, as packages have them.

use std::fs;
use std::process::Command;

fn stdout(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_millpond"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The subcommands that the help lists.
fn subcommands() -> Vec<String> {
    let help = stdout(&["--help"]);
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let (list, _) = list.split_once("\n\n").unwrap();
    // Further lines of a description stand further to the right.
    let names = list
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.map(|line| line.split_whitespace().next().unwrap());
    names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// The options that the help of a subcommand lists.
fn options(subcommand: &str) -> Vec<String> {
    let help = stdout(&[subcommand, "--help"]);
    // Further lines of a description stand further to the right.
    let lines = help.lines().filter(|line| !line.starts_with("       "));
    let words = lines.filter_map(|line| line.split_whitespace().next());
    let options = words.filter(|word| word.starts_with("--"));
    options.map(str::to_owned).collect()
}

#[test]
fn every_option_is_in_the_manual_and_the_completions() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man");
    stdout(&["manual", pages.to_str().unwrap()]);
    let page = |name: &str| {
        let page = fs::read_to_string(pages.join(name));
        // A hyphen of roff is `\-`.
        page.unwrap_or_else(|error| panic!("{name}: {error}"))
            .replace('\\', "")
    };
    let completions = ["bash", "zsh", "fish"].map(|shell| stdout(&["completions", shell]));
    let overview = page("millpond.1");
    let subcommands = subcommands();
    assert!(subcommands.len() >= 10, "{subcommands:?}");
    for subcommand in &subcommands {
        assert!(overview.contains(&format!("millpond-{subcommand}(1)")));
        let page = page(&format!("millpond-{subcommand}.1"));
        for option in options(subcommand) {
            assert!(page.contains(&option), "{subcommand} {option}");
            for completions in &completions {
                // fish names options without dashes.
                let name = option.trim_start_matches('-');
                assert!(completions.contains(name), "{subcommand} {option}");
            }
        }
    }
    assert!(page("millpond-serve.1").contains("MILLPOND_MEMORY_LIMIT"));
}
