//! What sudo says when it refuses, told from anything else that is written to stderr.
//!
//! Its messages are translated, unless its locale is `C`; it has no other locale here unless the caller names one for the
//! command. They do not decide alone whether sudo refused: a command can run a sudo of its own, and pass on its words.

/// Why sudo did not run the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    /// It would have asked somebody.
    Password,
    /// Its rules do not allow it.
    Rules,
    UnknownUser,
    /// It found no such program.
    NoProgram,
    /// The rules allowed it, and then the system did not: the file, and why.
    Execution(String),
    /// The rules do not let these variables be handed on, as sudo lists them.
    Variables(String),
    /// In its own words.
    Other(String),
}

/// What all of `text` says, when all of it is a refusal by sudo; of several lines the first that says why.
pub(super) fn of_sudo(text: &str) -> Option<Reason> {
    let mut reason = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let said = of_line(line)?;
        if matches!(reason, None | Some(Reason::Other(_))) {
            reason = Some(said);
        }
    }
    reason
}

fn of_line(line: &str) -> Option<Reason> {
    // These come without the name in front.
    let rules = ["Sorry, user ", "I'm sorry "].iter().any(|start| line.starts_with(start))
        || [" is not in the sudoers file", " is not allowed to run sudo on ", " may not run sudo on "]
            .iter()
            .any(|part| line.contains(part));
    if rules {
        return Some(Reason::Rules);
    }
    let said = line.strip_prefix("sudo: ")?;
    let asks = [
        "a password is required",
        "a terminal is required",
        "no tty present",
        "no password was provided",
        "interactive authentication is required",
    ];
    if asks.iter().any(|start| said.starts_with(start)) {
        return Some(Reason::Password);
    }
    if let Some(names) = said.strip_prefix("sorry, you are not allowed to set the following environment variables: ") {
        return Some(Reason::Variables(names.to_owned()));
    }
    if said.starts_with("sorry, you are not allowed to preserve the environment") {
        return Some(Reason::Variables(String::new()));
    }
    if said.starts_with("unknown user") || said.starts_with("user ") && said.ends_with(" not found") {
        return Some(Reason::UnknownUser);
    }
    if said.ends_with(": command not found") {
        return Some(Reason::NoProgram);
    }
    if let Some(what) = said.strip_prefix("unable to execute ") {
        return Some(Reason::Execution(what.to_owned()));
    }
    Some(Reason::Other(said.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_from_other_words() {
        let variables = |names: &str| Some(Reason::Variables(names.into()));
        let other = |words: &str| Some(Reason::Other(words.into()));
        for (text, expected) in [
            ("", None),
            ("\n\n", None),
            ("sudo: a password is required\n", Some(Reason::Password)),
            ("sudo: a terminal is required to read the password; either use …\n", Some(Reason::Password)),
            ("sudo: interactive authentication is required\n", Some(Reason::Password)),
            ("Sorry, user a is not allowed to execute '/bin/ls' as b on host.\n", Some(Reason::Rules)),
            ("a is not in the sudoers file.\n", Some(Reason::Rules)),
            ("a is not in the sudoers file.  This incident will be reported.\n", Some(Reason::Rules)),
            ("Sorry, user a may not run sudo on host.\n", Some(Reason::Rules)),
            ("sudo: sorry, you are not allowed to set the following environment variables: A, B\n", variables("A, B")),
            ("sudo: sorry, you are not allowed to preserve the environment\n", variables("")),
            ("sudo: unknown user b\nsudo: error initializing audit plugin sudoers_audit\n", Some(Reason::UnknownUser)),
            ("sudo: unknown user: b\n", Some(Reason::UnknownUser)),
            ("sudo: x: command not found\n", Some(Reason::NoProgram)),
            (
                "sudo: unable to execute /x: Permission denied\n",
                Some(Reason::Execution("/x: Permission denied".into())),
            ),
            (
                "sudo: unable to resolve host h: Name or service not known\n",
                other("unable to resolve host h: Name or service not known"),
            ),
            (
                "sudo: unable to resolve host h: Name or service not known\nsudo: a password is required\n",
                Some(Reason::Password),
            ),
            // Not sudo's words, or not its words alone.
            ("sudo", None),
            ("ls: x: command not found\n", None),
            ("working\nsudo: a password is required\n", None),
            ("sudo: a password is required\ngiving up\n", None),
        ] {
            assert_eq!(of_sudo(text), expected, "{text:?}");
        }
    }
}
