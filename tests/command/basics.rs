//! What a command is made of, and what comes back: arguments, environment, directory, exit codes, text and bytes.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::LazyLock;
use std::time::Duration;

use deluxe_process::{Command, Error, ErrorKind, Output, OutputLimit, ResourceLimit, Shutdown, Signal, Stdio};
use futures_lite::future;

use testkit::{Itself, Mark, OWN_STDIN, Outcome, Place, on_every_executor, passes, sh};

#[on_every_executor]
async fn arguments_keep_their_order() -> Outcome {
    let text = Command::new("printf").arg("%s,%s,%s,%s,").arg("b").args(["a", "c"]).secret_arg("0").read().await?;
    assert_eq!(text, "b,a,c,0,");
    Ok(())
}

/// What a child sees of these arguments.
async fn echoed(arguments: &[OsString]) -> Result<Vec<OsString>, deluxe_process::Error> {
    let bytes = Command::new("printf").arg("%s\\0").args(arguments).read_bytes().await?;
    let mut seen: Vec<OsString> = bytes.split(|byte| *byte == 0).map(|text| OsStr::from_bytes(text).into()).collect();
    assert_eq!(seen.pop(), Some(OsString::new()), "what is behind the last NUL");
    Ok(seen)
}

#[on_every_executor]
async fn any_printable_argument_round_trips() -> Outcome {
    let printable: String = (' '..='~').chain("äöüß€漢字😀".chars()).collect();
    let mut arguments: Vec<OsString> = printable.chars().map(|character| character.to_string().into()).collect();
    arguments.extend(["", " ", "  two  words ", "-", "--", "-n", "\t", "two\nlines", &printable].map(OsString::from));
    assert_eq!(echoed(&arguments).await?, arguments);
    Ok(())
}

#[on_every_executor]
async fn any_byte_but_nul_round_trips_in_arguments() -> Outcome {
    let every: Vec<u8> = (1..=255).collect();
    let single = every.iter().map(|byte| OsString::from_vec(vec![*byte]));
    let arguments: Vec<OsString> = single.chain([OsString::from_vec(every.clone())]).collect();
    assert_eq!(echoed(&arguments).await?, arguments);
    Ok(())
}

#[on_every_executor]
async fn no_shell_reads_the_arguments() -> Outcome {
    let arguments = ["$HOME", "*", ";", "`id`", "$(id)", "a && b", ">file", "~", "\\", "'", "\""].map(OsString::from);
    assert_eq!(echoed(&arguments).await?, arguments);
    Ok(())
}

#[on_every_executor]
async fn a_directory_as_an_argument() -> Outcome {
    let place = Place::new();
    place.file("one", "");
    place.file("two words", "");
    assert_eq!(Command::new("ls").arg(place.path()).read().await?, "one\ntwo words");
    Ok(())
}

#[on_every_executor]
async fn with_adds_arguments_to_a_copy() -> Outcome {
    let mut echo = Command::find("echo")?;
    echo.arg("first");
    assert_eq!(echo.with(["second"]).read().await?, "first second");
    assert_eq!(echo.with(["third"]).with([OsStr::new("fourth")]).read().await?, "first third fourth");
    assert_eq!(echo.read().await?, "first");
    Ok(())
}

#[on_every_executor]
async fn arg0_is_the_name_that_the_program_sees() -> Outcome {
    let script = ["-c", "echo \"$0\""];
    assert_eq!(Command::new("sh").args(script).read().await?, "sh");
    assert_eq!(Command::new("sh").args(script).arg0("another name").read().await?, "another name");
    let found = Command::find("sh")?.with(script).read().await?;
    assert!(found.starts_with('/') && found.ends_with("/sh"), "{found}");
    assert_eq!(Command::at(&found)?.with(script).arg0("sh").read().await?, "sh");
    Ok(())
}

#[on_every_executor]
async fn a_variable_is_seen_by_the_child() -> Outcome {
    assert_eq!(sh("echo \"$SUITE_X\"").env("SUITE_X", "a  'value'").read().await?, "a  'value'");
    assert_eq!(sh("echo \"$SUITE_X\"").secret_env("SUITE_X", "hidden").read().await?, "hidden");
    assert_eq!(sh("echo \"${SUITE_X-unset}\"").env("SUITE_X", "").read().await?, "");
    Ok(())
}

/// All that `env` sees.
async fn variables(command: &mut Command) -> Result<Vec<String>, deluxe_process::Error> {
    let mut lines: Vec<String> = command.read().await?.lines().map(String::from).collect();
    lines.sort();
    Ok(lines)
}

#[on_every_executor]
async fn variables_are_set_removed_and_cleared_in_order() -> Outcome {
    let env = || Command::find("env").map(|mut env| std::mem::replace(env.unmarked(), Command::new("true")));
    assert_eq!(variables(env()?.env_clear()).await?, [""; 0]);
    assert_eq!(variables(env()?.env_clear().env("A", "1").env("B", "2")).await?, ["A=1", "B=2"]);
    assert_eq!(variables(env()?.env("A", "1").env_clear().env("B", "2")).await?, ["B=2"]);
    assert_eq!(variables(env()?.env_clear().env("A", "1").env("A", "2").env_remove("B")).await?, ["A=2"]);
    assert_eq!(variables(env()?.env_clear().envs([("A", "1"), ("B", "2"), ("A", "3")])).await?, ["A=3", "B=2"]);
    assert_eq!(variables(env()?.env_clear().env("A", "1").env_remove("A")).await?, [""; 0]);
    assert_eq!(variables(env()?.env_clear().env_remove("A").env("A", "1")).await?, ["A=1"]);

    let with_path = variables(env()?.env("SUITE_X", "1")).await?;
    assert!(with_path.iter().any(|line| line.starts_with("PATH=")), "{with_path:?}");
    assert!(with_path.contains(&"SUITE_X=1".into()), "{with_path:?}");
    let without = variables(env()?.env_remove("PATH")).await?;
    assert!(!without.iter().any(|line| line.starts_with("PATH=")), "{without:?}");
    assert!(!without.is_empty());
    Ok(())
}

#[on_every_executor]
async fn any_value_round_trips_in_a_variable() -> Outcome {
    let value = OsString::from_vec((1..=255).collect());
    let seen = Command::find("env")?.env_clear().env("X", &value).unmarked().read_bytes().await?;
    assert_eq!(seen, [b"X=", value.as_bytes(), b"\n"].concat());
    Ok(())
}

#[on_every_executor]
async fn the_environment_is_inherited(itself: Itself) -> Outcome {
    if !itself.is_child() {
        let mut child = itself.command();
        child.env("SUITE_INHERITED", OsStr::from_bytes(b"gr\xfc\xdfe"));
        return passes(&child).await.map(|_| ());
    }
    assert_eq!(sh("printf %s \"$SUITE_INHERITED\"").read_bytes().await?, b"gr\xfc\xdfe");
    assert_eq!(sh("printf %s \"$SUITE_INHERITED\"").env("OTHER", "1").read_bytes().await?, b"gr\xfc\xdfe");
    Ok(())
}

#[on_every_executor]
async fn the_working_directory_is_the_childs() -> Outcome {
    let place = Place::new();
    let directory = place.directory("two words").canonicalize()?;
    let seen = sh("pwd -P").current_dir(&directory).read().await?;
    assert_eq!(seen, directory.to_str().unwrap());
    let here = std::env::current_dir()?.canonicalize()?;
    assert_eq!(sh("pwd -P").read().await?, here.to_str().unwrap());
    Ok(())
}

#[on_every_executor]
async fn text_is_without_its_last_line_end() -> Outcome {
    for (written, read) in [
        ("", ""),
        ("\\n", ""),
        ("text", "text"),
        ("text\\n", "text"),
        ("text\\r\\n", "text"),
        ("text\\n\\n", "text\n"),
        (" text \\n", " text "),
        ("gr\\303\\274n\\n", "grün"),
    ] {
        assert_eq!(Command::new("printf").arg(written).read().await?, read, "{written}");
    }
    Ok(())
}

#[on_every_executor]
async fn bytes_are_as_they_are() -> Outcome {
    assert_eq!(Command::new("printf").arg("a\\000\\377\\r\\n").read_bytes().await?, b"a\0\xff\r\n");
    Ok(())
}

#[cfg(feature = "encoding")]
#[on_every_executor]
async fn text_in_another_encoding() -> Outcome {
    let mut printf = Command::new("printf");
    assert_eq!(printf.arg("gr\\374n\\n").read_decoded(encoding_rs::WINDOWS_1252).await?, "grün");
    let marked = Command::new("printf").arg("\\377\\376h\\000i\\000\\n\\000").read_decoded(encoding_rs::UTF_8).await?;
    assert_eq!(marked, "hi", "the byte order mark decides");
    let broken = Command::new("printf").arg("a\\377b").read_decoded(encoding_rs::UTF_8).await?;
    assert_eq!(broken, "a\u{fffd}b");
    let error = sh("echo text; exit 3").read_decoded(encoding_rs::UTF_8).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ExitStatus);
    Ok(())
}

#[on_every_executor]
async fn text_that_is_not_utf8_is_an_error_with_the_bytes() -> Outcome {
    let error = sh("printf 'ab\\377cd'; echo said >&2").read().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidUtf8);
    assert!(error.to_string().contains("from byte 2 on"), "{error}");
    assert_eq!(error.stdout(), Some(&b"ab\xffcd"[..]));
    assert_eq!(error.stderr(), Some(&b"said\n"[..]));
    assert!(error.exit_status().is_some_and(|status| status.success()));
    Ok(())
}

#[on_every_executor]
async fn every_way_to_run_gives_its_result() -> Outcome {
    let quiet = || {
        let mut command = sh("echo out; echo err >&2");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    assert!(quiet().status().await?.success());
    quiet().run().await?;
    assert!(quiet().spawn().await?.await?.success());
    let output = sh("echo out; echo err >&2").output().await?;
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    assert!(output.status.success() && !output.is_truncated() && !output.is_pipe_held_open());
    assert_eq!(sh("echo out").read().await?, "out");
    assert_eq!(sh("echo out").read_bytes().await?, b"out\n");
    Ok(())
}

#[on_every_executor]
async fn exit_1_is_an_error_where_success_is_expected() -> Outcome {
    let errors = [
        Command::new("false").run().await.map(drop),
        Command::new("false").read().await.map(drop),
        Command::new("false").read_bytes().await.map(drop),
    ];
    for error in errors.map(Result::unwrap_err) {
        assert_eq!(error.kind(), ErrorKind::ExitStatus);
        assert_eq!(error.exit_status().and_then(|status| status.code()), Some(1));
        assert_eq!(error.signal(), None);
        assert!(error.elapsed().is_some() && error.pid().is_some());
    }
    Ok(())
}

#[on_every_executor]
async fn exit_42_is_kept() -> Outcome {
    assert_eq!(sh("exit 42").status().await?.code(), Some(42));
    assert_eq!(sh("exit 42").output().await?.status.code(), Some(42));
    assert_eq!(sh("exit 42").spawn().await?.wait().await?.code(), Some(42));
    let error = sh("exit 42").read().await.unwrap_err();
    assert_eq!(error.exit_status().and_then(|status| status.code()), Some(42));
    assert!(error.to_string().contains("exit status 42"), "{error}");
    Ok(())
}

#[on_every_executor]
async fn accepted_codes_are_a_success() -> Outcome {
    assert_eq!(sh("echo none; exit 1").accept([0, 1]).read().await?, "none");
    sh("exit 1").accept([0, 1]).run().await?;
    let error = sh("exit 2").accept([0, 1]).run().await.unwrap_err();
    assert_eq!(error.exit_status().and_then(|status| status.code()), Some(2));
    let error = sh("exit 0").accept([3]).run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ExitStatus, "only what is named is accepted");
    let error = sh("kill -KILL $$").accept([0, 9, 137]).run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Signaled, "a signal is no code");
    Ok(())
}

#[on_every_executor]
async fn death_by_signal_is_an_error_that_names_the_signal() -> Outcome {
    for (name, signal) in [("KILL", Signal::KILL), ("TERM", Signal::TERM), ("USR1", Signal::USR1)] {
        let error = sh(&format!("kill -{name} $$")).read().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Signaled);
        assert_eq!(error.signal(), Some(signal));
        assert!(error.to_string().contains(&format!("was ended by SIG{name}")), "{error}");
        assert_eq!(error.exit_status().and_then(|status| status.code()), None);
    }
    assert_eq!(sh("kill -KILL $$").output().await?.status.signal(), Some(9));
    Ok(())
}

#[on_every_executor]
async fn the_error_identifies_the_command() -> Outcome {
    let mut command = sh("echo the reason >&2; exit 3");
    let error = command.arg("it's").read().await.unwrap_err();
    let line = "sh -c 'echo the reason >&2; exit 3' 'it'\\''s'";
    assert_eq!(error.command(), Some(line));
    assert_eq!(command.to_string(), line);
    let text = error.to_string();
    assert!(text.starts_with(&format!("`{line}` failed with exit status 3 after ")), "{text}");
    assert!(text.ends_with(": the reason"), "{text}");
    Ok(())
}

#[on_every_executor]
async fn the_command_in_an_error_can_be_pasted() -> Outcome {
    let arguments = ["it's", "two\nlines", "$HOME", "~", "", "\u{1b}[0m", "grün"];
    let mut command = sh("printf '%s|' \"$0\" \"$@\"; exit 3");
    let error = command.args(arguments).read().await.unwrap_err();
    let again = Command::new("bash").arg("-c").arg(error.command().unwrap()).output().await?;
    assert_eq!(again.status.code(), Some(3));
    assert_eq!(Some(&again.stdout[..]), error.stdout());
    Ok(())
}

#[on_every_executor]
async fn messages_are_the_same_for_text_and_bytes() -> Outcome {
    let command = sh("echo grüße >&2; exit 3");
    let before_time = |error: deluxe_process::Error| error.to_string().split(" after ").next().unwrap().to_owned();
    let text = command.read().await.unwrap_err();
    let bytes = command.read_bytes().await.unwrap_err();
    assert!(bytes.to_string().ends_with(": grüße"), "{bytes}");
    assert_eq!(before_time(text), before_time(bytes));
    Ok(())
}

#[on_every_executor]
async fn an_error_keeps_stdout_and_a_success_keeps_stderr() -> Outcome {
    let error = sh("echo out; echo one >&2; echo two >&2; exit 3").read().await.unwrap_err();
    assert_eq!(error.stdout(), Some(&b"out\n"[..]));
    assert_eq!(error.stderr(), Some(&b"one\ntwo\n"[..]));
    assert_eq!(error.stderr_tail(), Some("one\ntwo"));
    let output = sh("echo warning >&2").output().await?;
    assert!(output.status.success());
    assert_eq!(output.stderr, b"warning\n");
    Ok(())
}

#[on_every_executor]
async fn invalid_utf8_on_stderr_does_not_hide_the_status() -> Outcome {
    let error = sh("printf 'bad \\377\\n' >&2; exit 3").read().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ExitStatus);
    assert_eq!(error.exit_status().and_then(|status| status.code()), Some(3));
    assert_eq!(error.stderr(), Some(&b"bad \xff\n"[..]));
    assert_eq!(error.stderr_tail(), Some("bad \u{fffd}"));
    Ok(())
}

#[on_every_executor]
async fn failures_are_told_apart_by_their_kind() -> Outcome {
    let place = Place::new();
    let plain = place.file("plain", "text");
    let gone = place.at("gone");
    let failures = [
        (Command::new(&gone).run(), ErrorKind::NotFound),
        (Command::new(plain).run(), ErrorKind::NotExecutable),
        (Command::new("true").current_dir(&gone).run(), ErrorKind::WorkingDirectory),
        (Command::new("true").arg("a\0b").run(), ErrorKind::InvalidInput),
        (Command::new("false").run(), ErrorKind::ExitStatus),
        (sh("kill -KILL $$").run(), ErrorKind::Signaled),
        (sh("exec sleep 1000").timeout(Duration::from_millis(1)).run(), ErrorKind::TimedOut),
    ];
    for (run, kind) in failures {
        let error: deluxe_process::Error = run.await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(error.is_not_found(), kind == ErrorKind::NotFound);
        assert_eq!(error.is_timed_out(), kind == ErrorKind::TimedOut);
        assert!(!error.is_permission_denied());
    }
    Ok(())
}

#[on_every_executor]
async fn a_non_zero_exit_is_never_a_silent_success() -> Outcome {
    use futures_lite::StreamExt;

    assert!(sh("exit 7").run().await.is_err());
    assert!(sh("exit 7").read().await.is_err());
    assert!(sh("exit 7").read_bytes().await.is_err());
    let last = sh("echo line; exit 7").lines().last().await.unwrap();
    assert_eq!(last.unwrap_err().kind(), ErrorKind::ExitStatus);
    // These hand the status over, in a type that has to be looked at.
    assert!(!sh("exit 7").status().await?.success());
    assert!(!sh("exit 7").output().await?.status.success());
    Ok(())
}

#[on_every_executor]
async fn instances_are_independent() -> Outcome {
    let mut first = sh("printf '%s/%s/' \"$SUITE_X\" \"$PWD\"; printf '%s,' \"$@\"");
    first.arg("sh").env("SUITE_X", "1").current_dir("/");
    let mut second = first.clone();
    second.arg("more").env("SUITE_X", "2").current_dir("/usr").timeout(Duration::from_secs(100)).accept([1]);
    let mut third = first.clone();
    third.env_clear();
    assert_eq!(first.read().await?, "1///,");
    assert_eq!(second.accept([0]).read().await?, "2//usr/more,");
    assert_eq!(third.read().await?, "///,");
    assert_eq!(first.read().await?, "1///,");
    Ok(())
}

#[on_every_executor]
async fn one_command_runs_many_times_at_once() -> Outcome {
    static COMMAND: LazyLock<Command> = LazyLock::new(|| {
        let mut command = Command::new("cat");
        command.input("the same for all");
        command
    });
    let runs = std::iter::repeat_with(|| COMMAND.read()).take(16).collect::<Vec<_>>();
    for run in runs {
        assert_eq!(run.await?, "the same for all");
    }
    let mut together: Vec<_> = std::iter::repeat_with(|| COMMAND.read()).take(16).collect();
    let mut results = Vec::new();
    future::poll_fn(|cx| {
        together.retain_mut(|run| match std::pin::Pin::new(run).poll(cx) {
            std::task::Poll::Ready(result) => {
                results.push(result);
                false
            }
            std::task::Poll::Pending => true,
        });
        if together.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    for result in results {
        assert_eq!(result?, "the same for all");
    }
    Ok(())
}

#[on_every_executor]
async fn nothing_happens_before_the_first_poll() -> Outcome {
    let place = Place::new();
    let mark = Mark::new();
    let made = place.at("made");
    let mut touch = mark.put_on(Command::new("touch"));
    touch.arg(&made);
    drop((touch.status(), touch.output(), touch.run(), touch.read(), touch.read_bytes()));
    drop((touch.spawn(), touch.lines(), touch.events()));
    // A run after these shows that one of them would have had the time.
    let unpolled = touch.run();
    Command::new("true").run().await?;
    assert!(mark.living().is_empty() && !made.exists());
    unpolled.await?;
    assert!(made.exists());
    Ok(())
}

const SECRET: &str = "hunter2-Zm9v";

#[on_every_executor]
async fn secrets_are_shown_nowhere() -> Outcome {
    let mut command = sh("exit 3");
    command.arg("--password").secret_arg(SECRET).secret_env("TOKEN", SECRET).env("OPEN", "shown");
    assert_eq!(command.to_string(), "sh -c 'exit 3' --password ***");
    let debug = format!("{command:?}");
    assert!(debug.contains("TOKEN=***") && debug.contains("OPEN=shown"), "{debug}");
    let mut texts = vec![command.to_string(), debug, format!("{:#?}", command)];

    let mut missing = command.clone();
    missing.current_dir("/no/such/directory");
    let mut late = sh("exec sleep 1000");
    late.arg("sh").secret_arg(SECRET).timeout(Duration::from_millis(1)).shutdown(Shutdown::kill());
    let mut invalid = command.clone();
    invalid.secret_env("OTHER", format!("{SECRET}\0"));
    for command in [command.clone(), missing, late, invalid] {
        let error = command.read().await.unwrap_err();
        texts.extend([error.to_string(), format!("{error:#}"), format!("{error:?}"), error.command().unwrap().into()]);
        texts.push(format!("{:?}", command.lines()));
        texts.push(format!("{:?}", command.events()));
    }
    let child = command.spawn().await?;
    texts.push(format!("{child:?}"));
    child.wait().await?;
    for text in texts {
        assert!(!text.contains(SECRET), "{text}");
    }
    Ok(())
}

#[on_every_executor]
async fn secrets_that_the_child_repeats_are_redacted() -> Outcome {
    let mut command = sh("echo \"wrong password '$1', token $TOKEN.\" >&2; exit 3");
    command.arg("sh").secret_arg(SECRET).secret_env("TOKEN", "t0ken-of-mine");
    let error = command.read().await.unwrap_err();
    assert_eq!(error.stderr_tail(), Some("wrong password '***', token ***."));
    for text in [error.to_string(), format!("{error:#}"), format!("{error:?}")] {
        assert!(!text.contains(SECRET) && !text.contains("t0ken"), "{text}");
    }

    // A limit leaves half of it.
    let mut command = sh("printf 'wrong: %s' \"$1\" >&2; exit 3");
    command.arg("sh").secret_arg(SECRET);
    let half = SECRET.len() / 2;
    for (limit, expected) in [
        (OutputLimit::tail(half), "***"),
        (OutputLimit::head("wrong: ".len() + half), "wrong: ***"),
        (OutputLimit::fail("wrong: ".len() + half), "wrong: ***"),
    ] {
        let error = command.output_limit(limit).read().await.unwrap_err();
        assert_eq!(error.stderr_tail(), Some(expected));
    }
    Ok(())
}

#[on_every_executor]
async fn a_command_says_what_it_was_given() -> Outcome {
    let mut command = Command::new("tool");
    assert_eq!((command.get_program(), command.get_args().len(), command.get_envs().len()), (OsStr::new("tool"), 0, 0));
    assert_eq!(command.get_current_dir(), None);
    command
        .args(["one", "two"])
        .secret_arg("three")
        .env("B", "2")
        .secret_env("A", "1")
        .env_remove("C")
        .current_dir("/tmp");
    assert_eq!(command.get_args().collect::<Vec<_>>(), ["one", "two", "three"]);
    let variables: Vec<_> = command.get_envs().collect();
    let of = |text: &'static str| Some(OsStr::new(text));
    assert_eq!(variables, [(OsStr::new("A"), of("1")), (OsStr::new("B"), of("2")), (OsStr::new("C"), None)]);
    assert_eq!(command.get_current_dir(), Some(Path::new("/tmp")));
    assert!(Path::new(Command::find("sh")?.get_program()).is_absolute());
    let (fail, head, tail) = (OutputLimit::fail(1), OutputLimit::head(2), OutputLimit::tail(3));
    assert_eq!([fail, head, tail].map(OutputLimit::bytes), [1, 2, 3]);
    assert!(
        fail.is_fail() && head.is_head() && tail.is_tail() && !fail.is_head() && !head.is_tail() && !tail.is_fail()
    );
    let limit = ResourceLimit::new(64).soft(32);
    assert_eq!((limit.soft_limit(), limit.hard_limit()), (Some(32), Some(64)));
    assert_eq!((ResourceLimit::unlimited().soft_limit(), ResourceLimit::unlimited().hard_limit()), (None, None));
    Ok(())
}

#[on_every_executor]
async fn line_ends_are_not_translated() -> Outcome {
    assert_eq!(Command::new("printf").arg("one\\r\\ntwo\\r\\n\\r\\n").read().await?, "one\r\ntwo\r\n");
    Ok(())
}

#[on_every_executor]
async fn a_switch_can_be_turned_off() -> Outcome {
    let mut command = sh("echo out; echo err >&2");
    command.merge_stderr(true).new_session(true).tee(true).keep_terminal(true).stop_on_drop(true);
    command.merge_stderr(false).new_session(false).tee(false).keep_terminal(false).stop_on_drop(false);
    let output = command.output().await?;
    assert_eq!((&*output.stdout, &*output.stderr), (&b"out\n"[..], &b"err\n"[..]));
    command.spawn().await?.wait().await?;
    Ok(())
}

#[on_every_executor]
async fn commands_convert_from_references() -> Outcome {
    let mut command = Command::new("echo");
    let from_builder = Command::from(command.arg("hello"));
    let from_reference = Command::from(&command);
    assert_eq!(from_builder.read().await?, "hello");
    assert_eq!(from_reference.read().await?, "hello");
    Ok(())
}

#[on_every_executor]
async fn output_converts_from_and_to_that_of_std() -> Outcome {
    let output = sh("echo out; echo err >&2; exit 3").output().await?;
    let std = std::process::Output::from(output.clone());
    assert_eq!((&std.stdout, &std.stderr, std.status), (&output.stdout, &output.stderr, output.status));
    assert_eq!(Output::from(std), output);
    assert_eq!(output.status, ExitStatus::from_raw(3 << 8));
    Ok(())
}

#[on_every_executor]
async fn a_captured_child_does_not_eat_the_parents_input(itself: Itself) -> Outcome {
    if !itself.is_child() {
        return itself.passes_alone().await;
    }
    use futures_lite::StreamExt;

    assert_eq!(Command::new("cat").read().await?, "");
    assert_eq!(Command::new("cat").read_bytes().await?, b"");
    assert_eq!(Command::new("cat").output().await?.stdout, b"");
    assert_eq!(Command::new("cat").lines().count().await, 0);
    assert_eq!(Command::new("cat").events().count().await, 2, "start and exit");
    assert_eq!(std::io::read_to_string(std::io::stdin())?, OWN_STDIN);
    Ok(())
}

#[on_every_executor]
async fn empty_input_does_not_inherit_stdin(itself: Itself) -> Outcome {
    if !itself.is_child() {
        return itself.passes_alone().await;
    }
    let place = Place::new();
    let copy = place.file("copy", "");
    let mut cat = Command::new("cat");
    cat.input(b"").stdout(fs::File::create(&copy)?);
    cat.run().await?;
    assert!(cat.status().await?.success());
    assert_eq!(fs::read(&copy)?, b"");
    assert_eq!(Command::new("cat").input("").read().await?, "");
    assert_eq!(std::io::read_to_string(std::io::stdin())?, OWN_STDIN);
    Ok(())
}

#[on_every_executor]
async fn uncaptured_runs_inherit_the_streams(itself: Itself) -> Outcome {
    if itself.is_child() {
        sh("read line; echo \"<read $line>\"; echo '<run err>' >&2").run().await?;
        sh("echo '<status out>'; echo '<status err>' >&2").status().await?;
        sh("echo '<spawn out>'; echo '<spawn err>' >&2").spawn().await?.wait().await?;
        let output = sh("echo '<output out>'; echo '<output err>' >&2").stdout(Stdio::inherit()).output().await?;
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b""[..], &b"<output err>\n"[..]));
        return Ok(());
    }
    let (stdout, stderr) = passes(&itself.command()).await?;
    let read = format!("<read {}>", OWN_STDIN.trim_end());
    for text in [&read, "<status out>", "<spawn out>", "<output out>"] {
        assert_eq!(stdout.matches(text).count(), 1, "{text} in {stdout}");
    }
    for text in ["<run err>", "<status err>", "<spawn err>"] {
        assert_eq!(stderr.matches(text).count(), 1, "{text} in {stderr}");
    }
    assert!(!stderr.contains("<output err>"), "{stderr}");
    Ok(())
}

/// Wherever a limit of output cuts, and wherever the command is when it is stopped for that.
#[on_every_executor]
async fn a_secret_that_a_limit_cuts_is_hidden() -> Outcome {
    const SECRET: &str = "QWXZKJVBPYUHGFMN";
    let hides = |error: &Error| {
        let shown = format!("{error} {error:#} {error:?} {}", error.stderr_tail().unwrap_or_default());
        for piece in SECRET.as_bytes().windows(2).map(|piece| std::str::from_utf8(piece).unwrap()) {
            assert!(!shown.contains(piece), "{piece} is in {shown}");
        }
    };
    for bytes in (0..=40).step_by(3) {
        for limit in [OutputLimit::fail(bytes), OutputLimit::head(bytes), OutputLimit::tail(bytes)] {
            let mut command = sh("printf 'is <%s>, %s' \"$TOKEN\" \"$TOKEN\" >&2; exit 3");
            command.secret_env("TOKEN", SECRET).output_limit(limit);
            hides(&command.read().await.unwrap_err());
            command.output().await.err().iter().for_each(hides);
        }
    }
    // Half of it is written when the limit of the other stream is exceeded, when the time is over, or at a crash.
    let mut half = sh("printf 'is %s' \"${TOKEN%????}\" >&2; printf 12345; exec sleep 1000");
    half.secret_env("TOKEN", SECRET).shutdown(Shutdown::kill()).output_limit(OutputLimit::fail(4));
    hides(&half.read().await.unwrap_err());
    half.output_limit(OutputLimit::fail(1000)).timeout(Duration::from_millis(200));
    hides(&half.read().await.unwrap_err());
    let mut crash = sh("printf 'is %s' \"${TOKEN%????}\" >&2; kill -KILL $$");
    let error = crash.secret_env("TOKEN", SECRET).read().await.unwrap_err();
    assert_eq!(error.stderr_tail(), Some("is ***"));
    hides(&error);
    Ok(())
}

#[on_every_executor]
async fn the_umask_is_the_childs() -> Outcome {
    let own = sh("umask").read().await?;
    assert_eq!(sh("umask").umask(0o027).read().await?, "0027");
    assert_eq!(sh("umask").umask(0).read().await?, "0000");
    assert_eq!(sh("umask").read().await?, own, "that of this program is what it was");
    let error = sh("umask").umask(0o1000).read().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("the umask 0o1000"), "{error}");
    Ok(())
}

#[on_every_executor]
async fn the_nice_value_is_the_childs() -> Outcome {
    let own: i32 = Command::new("nice").read().await?.parse()?;
    assert_eq!(Command::new("nice").nice(3).read().await?.parse::<i32>()?, (own + 3).min(19));
    assert_eq!(Command::new("nice").nice(i32::MAX).read().await?, "19");
    assert_eq!(Command::new("nice").read().await?.parse::<i32>()?, own, "that of this program is what it was");
    // Only with a privilege.
    match Command::new("nice").nice(-1).read().await {
        Ok(value) => assert_eq!(value.parse::<i32>()?, (own - 1).max(-20)),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
            assert!(error.to_string().contains("its nice value could not be set"), "{error}");
        }
    }
    Ok(())
}
