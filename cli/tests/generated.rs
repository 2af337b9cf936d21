//! What the command line makes for shells and for `man`.

use std::{
    io::Write,
    process::{Command, Stdio},
};

fn taskplatform() -> Command {
    Command::new(env!("CARGO_BIN_EXE_taskplatform"))
}

#[test]
fn bash_understands_its_completions() {
    let script = taskplatform().args(["completions", "bash"]).output().unwrap().stdout;
    let asked = "\nCOMP_WORDS=(taskplatform st); COMP_CWORD=1; _taskplatform taskplatform st taskplatform; echo \"${COMPREPLY[@]}\"\n";
    let mut bash = Command::new("bash").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    bash.stdin.take().unwrap().write_all(&[&script, asked.as_bytes()].concat()).unwrap();
    let completed = bash.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(completed.stdout).unwrap(), "status\n");
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    assert!(taskplatform().arg("man").arg(folder.path()).status().unwrap().success());
    let help = String::from_utf8(taskplatform().arg("--help").output().unwrap().stdout).unwrap();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // What a command does may go on in lines of their own, which begin further right.
    let named = listed.filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    let commands: Vec<&str> = named.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.contains(&"status"), "{help}");
    for command in commands.into_iter().filter(|command| *command != "help") {
        let page = std::fs::read_to_string(folder.path().join(format!("taskplatform-{command}.1"))).unwrap();
        assert!(page.contains(".SH NAME") && page.contains("Example"), "{command}: {page}");
    }
}
