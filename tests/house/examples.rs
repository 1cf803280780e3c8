//! Runs the examples, and holds them to what they print.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// The binary of an example; cargo builds it before it runs the tests, beside the folder of this test's own binary.
fn example(name: &str) -> PathBuf {
    let own = env::current_exe().unwrap();
    let path = own.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is not built: `cargo build --examples` does it", path.display());
    path
}

/// A text without the times in it, which differ from run to run: ` after 2.8ms` becomes ` after …`.
fn timeless(text: &str) -> String {
    let mut parts = text.split(" after ");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let number = part.trim_start_matches(|character: char| character.is_ascii_digit() || character == '.');
        let unit = ["ns", "µs", "ms", "s"].into_iter().find_map(|unit| number.strip_prefix(unit));
        result += " after ";
        match unit {
            Some(rest) if number.len() < part.len() => {
                result.push('…');
                result += rest;
            }
            _ => result += part,
        }
    }
    result
}

#[test]
fn times_are_left_out() {
    assert_eq!(timeless("failed after 2.8ms: late after all, after 12s"), "failed after …: late after all, after …");
}

#[test]
fn quickstart() {
    let output = Command::new(example("quickstart")).output().unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{stdout}{stderr}");
    assert_eq!(stderr, "");
    let system = Command::new("uname").arg("-s").output().unwrap();
    let expected = EXPECTED.trim_start().replace("SYSTEM", String::from_utf8(system.stdout).unwrap().trim());
    assert_eq!(timeless(&stdout).trim_end(), expected.trim_end(), "\nit printed:\n{stdout}");
}

const EXPECTED: &str = r#"
== run a program, read what it says
uname -s says SYSTEM
the same command with another argument says one
the same command with another argument says two
output has both streams ("out", "err") and the status (exit status: 3)

== stream lines as they come
3
2
1
it runs
it works
it complains, on stderr
it ends: exit status: 1

== feed input, and pipe one program into another
tr a-z A-Z makes of shout: SHOUT
cat gives 10 MB back as they were: true
printf | sort: 1 2 3

== give a tree of processes one second; all of it ignores SIGTERM
`sh -c 'trap '\'''\'' TERM; echo $$; sh -c '\''echo $$; sleep 1000 & echo $!; wait'\''; true'` timed out after … and was stopped
its last resort was Some(SIGKILL)
3 processes had told their numbers, 0 of them still run

== errors worth reading
NotFound: `frobnicate` could not be started: there is no program `frobnicate` on PATH, which is /bin, /usr/bin

WorkingDirectory: `ls` could not be started: its working directory `/no/such/directory` does not exist
  caused by: No such file or directory (os error 2)

ExitStatus: `sh -c 'echo '\''reading the plan'\'' >&2; echo "no such table: users" >&2; exit 4'` failed with exit status 4 after …: no such table: users
  the end of its stderr:
    reading the plan
    no such table: users

ExitStatus: `sh -c 'echo "wrong password: $1" >&2; exit 1' login ***` failed with exit status 1 after …: wrong password: ***
"#;
