//! Recognizes the messages of a sudo that refuses, among everything else on stderr.
//!
//! sudo translates its messages unless its locale is `C`. It has no other locale here, unless the caller sets one for
//! the command. The messages alone do not decide whether sudo refused: a command can run another sudo, and repeat its
//! messages.

/// Why sudo did not run the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It needs a password.
    Password,
    /// Its rules do not allow the command.
    Rules,
    UnknownUser,
    /// Its rules require a terminal (`requiretty`), and it has none.
    Terminal,
    /// It found no such program.
    NoProgram,
    /// The rules allowed the command, and the system did not: the file, and why.
    Execution(String),
    /// The rules do not allow these variables, as sudo lists them.
    Variables(String),
    /// Another message.
    Other(String),
}

/// The refusal that `text` is, if every line is a message of sudo: the first line with a known reason, or all lines if
/// there is none.
pub(super) fn refusal_in(text: &str) -> Option<Refusal> {
    let mut reason: Option<Refusal> = None;
    for line in lines(text) {
        let message = refusal_of_line(line)?;
        reason = Some(match (reason, message) {
            (Some(Refusal::Other(first)), Refusal::Other(more)) => Refusal::Other(format!("{first}; {more}")),
            (None | Some(Refusal::Other(_)), message) => message,
            (Some(known), _) => known,
        });
    }
    reason
}

/// The whole text on one line, unless it is empty.
pub(super) fn on_one_line(text: &str) -> Option<String> {
    let lines: Vec<&str> = lines(text).map(|line| line.strip_prefix("sudo: ").unwrap_or(line)).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

fn refusal_of_line(line: &str) -> Option<Refusal> {
    // These come without the name in front, and with it from sudo-rs.
    let words = line.strip_prefix("sudo: ").unwrap_or(line);
    let rules = ["Sorry, user ", "I'm sorry "].iter().any(|start| words.starts_with(start))
        || [" is not in the sudoers file", " is not allowed to run sudo on ", " may not run sudo on "]
            .iter()
            .any(|part| line.contains(part));
    if rules {
        return Some(Refusal::Rules);
    }
    let message = line.strip_prefix("sudo: ")?;
    let asks = [
        "a password is required",
        "a terminal is required",
        "no tty present",
        "no password was provided",
        "interactive authentication is required",
    ];
    if asks.iter().any(|start| message.starts_with(start)) {
        return Some(Refusal::Password);
    }
    if message.starts_with("sorry, you must have a tty to run sudo") {
        return Some(Refusal::Terminal);
    }
    let sorry = message.strip_prefix("sorry, ").unwrap_or(message);
    if let Some(names) = sorry.strip_prefix("you are not allowed to set the following environment variables: ") {
        return Some(Refusal::Variables(names.to_owned()));
    }
    if message.starts_with("sorry, you are not allowed to preserve the environment") {
        return Some(Refusal::Variables(String::new()));
    }
    if message.starts_with("unknown user") || message.starts_with("user ") && message.ends_with(" not found") {
        return Some(Refusal::UnknownUser);
    }
    if message.ends_with(": command not found") {
        return Some(Refusal::NoProgram);
    }
    if let Some(what) = message.strip_prefix("unable to execute ") {
        return Some(Refusal::Execution(what.to_owned()));
    }
    // From sudo-rs.
    if let Some((file, why)) = message.strip_prefix("cannot execute '").and_then(|what| what.rsplit_once("': ")) {
        return Some(Refusal::Execution(format!("{file}: {why}")));
    }
    Some(Refusal::Other(message.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_from_other_output() {
        let variables = |names: &str| Some(Refusal::Variables(names.into()));
        let other = |words: &str| Some(Refusal::Other(words.into()));
        for (text, expected) in [
            ("", None),
            ("\n\n", None),
            ("sudo: a password is required\n", Some(Refusal::Password)),
            ("sudo: a terminal is required to read the password; either use …\n", Some(Refusal::Password)),
            ("sudo: interactive authentication is required\n", Some(Refusal::Password)),
            ("Sorry, user a is not allowed to execute '/bin/ls' as b on host.\n", Some(Refusal::Rules)),
            ("a is not in the sudoers file.\n", Some(Refusal::Rules)),
            ("a is not in the sudoers file.  This incident will be reported.\n", Some(Refusal::Rules)),
            ("Sorry, user a may not run sudo on host.\n", Some(Refusal::Rules)),
            ("sudo: I'm sorry a. I'm afraid I can't do that\n", Some(Refusal::Rules)),
            ("sudo: sorry, you are not allowed to set the following environment variables: A, B\n", variables("A, B")),
            ("sudo: sorry, you are not allowed to preserve the environment\n", variables("")),
            ("sudo: unknown user b\nsudo: error initializing audit plugin sudoers_audit\n", Some(Refusal::UnknownUser)),
            ("sudo: unknown user: b\n", Some(Refusal::UnknownUser)),
            ("sudo: x: command not found\n", Some(Refusal::NoProgram)),
            (
                "sudo: unable to execute /x: Permission denied\n",
                Some(Refusal::Execution("/x: Permission denied".into())),
            ),
            (
                "sudo: cannot execute '/x': Exec format error (os error 8)\n",
                Some(Refusal::Execution("/x: Exec format error (os error 8)".into())),
            ),
            ("sudo: you are not allowed to set the following environment variables: A, B\n", variables("A, B")),
            (
                "sudo: unable to resolve host h: Name or service not known\n",
                other("unable to resolve host h: Name or service not known"),
            ),
            (
                "sudo: unable to resolve host h: Name or service not known\nsudo: a password is required\n",
                Some(Refusal::Password),
            ),
            ("sudo: sorry, you must have a tty to run sudo\n", Some(Refusal::Terminal)),
            // Unknown messages are kept as a whole.
            (
                "sudo: The \"no new privileges\" flag is set, which prevents sudo from running as root.\n\
                 sudo: If sudo is running in a container, you may need to adjust the container configuration to disable \
                 the flag.\n",
                other(
                    "The \"no new privileges\" flag is set, which prevents sudo from running as root.; If sudo is running \
                     in a container, you may need to adjust the container configuration to disable the flag.",
                ),
            ),
            ("sudo: one\nsudo: two\nsudo: a password is required\nsudo: three\n", Some(Refusal::Password)),
            // Not from sudo, or not only from sudo.
            ("sudo", None),
            ("ls: x: command not found\n", None),
            ("working\nsudo: a password is required\n", None),
            ("sudo: a password is required\ngiving up\n", None),
        ] {
            assert_eq!(refusal_in(text), expected, "{text:?}");
        }
    }
}
