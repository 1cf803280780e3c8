//! Which program runs: the one that a shell would run in its place, and where `at` and `find` differ.

use std::env;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use deluxe_process::{Command, Error, ErrorKind};

use testkit::{Itself, Outcome, Place, on_every_executor, passes, sh};

/// A place to look from, and the `PATH` to look on.
struct Look<'a> {
    directory: &'a Path,
    path: Option<&'a str>,
}

impl Look<'_> {
    /// What our `name` says, which has to be what a shell says that runs the same there.
    async fn says(&self, name: &str) -> Result<String, Error> {
        let mut ours = Command::new(name);
        ours.current_dir(self.directory);
        if let Some(path) = self.path {
            ours.env("PATH", path);
        }
        let ours = ours.read().await;
        self.compare(name, "exec \"$0\"", &ours);
        // As a simple command, where the shell has none of its own with that name.
        if name != "pwd" {
            self.compare(name, "\"$0\"", &ours);
        }
        ours
    }

    fn compare(&self, name: &str, script: &str, ours: &Result<String, Error>) {
        let mut shell = std::process::Command::new("/bin/sh");
        shell.args(["-c", script, name]).current_dir(self.directory);
        if let Some(path) = self.path {
            shell.env("PATH", path);
        }
        let theirs = shell.output().unwrap();
        let text = String::from_utf8(theirs.stdout).unwrap();
        match ours {
            Ok(ours) => assert_eq!(ours, text.trim_end(), "{name} on {:?}, {script}", self.path),
            Err(error) => assert!(!theirs.status.success(), "{name} on {:?}, {script}: {error}: {text}", self.path),
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[on_every_executor]
async fn the_first_on_path_runs() -> Outcome {
    let place = Place::new();
    place.says("one/tool", "one");
    place.says("two/tool", "two");
    place.says("two/other", "other");
    let (one, two) = (place.at("one"), place.at("two"));
    for (path, tool) in [([&one, &two], "one"), ([&two, &one], "two")] {
        let path = env::join_paths(path)?;
        let look = Look { directory: Path::new("/"), path: path.to_str() };
        assert_eq!(look.says("tool").await?, tool);
        assert_eq!(look.says("other").await?, "other");
    }
    Ok(())
}

#[on_every_executor]
async fn path_of_the_child_counts() -> Outcome {
    let place = Place::new();
    place.says("ls", "not the usual one");
    let mut ls = Command::new("ls");
    assert_eq!(ls.env("PATH", place.path()).read().await?, "not the usual one");
    // It is in this program's, which does not count.
    let error = Command::new("sh").env("PATH", place.path()).read().await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    // The child is given what was searched.
    place.executable("path", "#!/bin/sh\necho \"$PATH\"\n");
    let seen = Command::new("path").env("PATH", place.path()).read().await?;
    assert_eq!(seen, text(place.path()));
    Ok(())
}

#[on_every_executor]
async fn a_cleared_environment_has_the_default_path() -> Outcome {
    assert_eq!(Command::new("sh").args(["-c", "echo hello"]).env_clear().read().await?, "hello");
    assert_eq!(Command::new("sh").args(["-c", "echo hello"]).env_remove("PATH").read().await?, "hello");
    let error = Command::new("no-such-tool").env_clear().read().await.unwrap_err();
    assert!(error.to_string().ends_with("on PATH, which is /bin, /usr/bin"), "{error}");
    // Not the PATH that this program has, and not one that was set before.
    let place = Place::new();
    place.says("tool", "tool");
    assert!(Command::new("tool").env("PATH", place.path()).env_clear().read().await.unwrap_err().is_not_found());
    assert_eq!(Command::new("tool").env_clear().env("PATH", place.path()).read().await?, "tool");
    Ok(())
}

#[on_every_executor]
async fn elements_of_path_are_relative_to_the_working_directory() -> Outcome {
    let place = Place::new();
    place.says("bin/tool", "bin");
    place.says("there/bin/tool", "there");
    let there = place.at("there");
    assert_eq!(Look { directory: place.path(), path: Some("bin") }.says("tool").await?, "bin");
    assert_eq!(Look { directory: &there, path: Some("bin") }.says("tool").await?, "there");
    assert_eq!(Look { directory: &there, path: Some("./bin/") }.says("tool").await?, "there");
    assert_eq!(Look { directory: &there, path: Some("../bin") }.says("tool").await?, "bin");
    assert_eq!(Look { directory: &there, path: Some("no:../bin") }.says("tool").await?, "bin");
    assert!(Look { directory: &there, path: Some("no") }.says("tool").await.unwrap_err().is_not_found());
    Ok(())
}

#[on_every_executor]
async fn empty_elements_of_path_are_the_working_directory() -> Outcome {
    let place = Place::new();
    place.says("tool", "here");
    place.says("bin/tool", "bin");
    let bin = place.at("bin");
    let bin = text(&bin);
    for (path, tool) in [
        ("".into(), "here"),
        (":".into(), "here"),
        (format!(":{bin}"), "here"),
        (format!("{bin}:"), "bin"),
        ("/no/such/directory:".into(), "here"),
        (format!("/no/such/directory::{bin}"), "here"),
        (".".into(), "here"),
    ] {
        assert_eq!(Look { directory: place.path(), path: Some(&path) }.says("tool").await?, tool, "{path}");
    }
    Ok(())
}

#[on_every_executor]
async fn a_relative_path_is_relative_to_the_working_directory() -> Outcome {
    let place = Place::new();
    place.says("tool", "up");
    place.says("there/tool", "there");
    place.says("there/in/tool", "in");
    let there = place.at("there");
    let look = Look { directory: &there, path: None };
    assert_eq!(look.says("./tool").await?, "there");
    assert_eq!(look.says("in/tool").await?, "in");
    assert_eq!(look.says("../tool").await?, "up");
    assert_eq!(look.says("in/../tool").await?, "there");
    assert!(look.says("./other").await.unwrap_err().is_not_found());
    Ok(())
}

#[on_every_executor]
async fn a_script_here_is_not_a_program_on_path() -> Outcome {
    let place = Place::new();
    place.says("pwd", "the script");
    let look = Look { directory: place.path(), path: None };
    let pwd = text(place.path()).to_owned();
    assert_eq!(look.says("pwd").await?, pwd);
    assert_eq!(look.says("./pwd").await?, "the script");
    assert_eq!(Command::at(place.at("pwd"))?.read().await?, "the script");
    Ok(())
}

#[on_every_executor]
async fn a_script_beside_a_binary_of_the_same_name() -> Outcome {
    let place = Place::new();
    place.says("scripts/pwd", "the script");
    let pwd = Command::find("pwd")?.to_string();
    let binaries = Path::new(&pwd).parent().unwrap();
    let scripts = place.at("scripts");
    for (path, expected) in [([&scripts, binaries], "the script"), ([binaries, &scripts], text(place.path()))] {
        let path = env::join_paths(path)?;
        let look = Look { directory: place.path(), path: path.to_str() };
        assert_eq!(look.says("pwd").await?, expected);
    }
    Ok(())
}

#[on_every_executor]
async fn what_can_not_be_executed_is_passed_over() -> Outcome {
    let place = Place::new();
    place.file("one/tool", "#!/bin/sh\necho one\n");
    place.says("two/tool", "two");
    let path = env::join_paths([place.at("one"), place.at("two")])?;
    assert_eq!(Look { directory: Path::new("/"), path: path.to_str() }.says("tool").await?, "two");
    Ok(())
}

#[on_every_executor]
async fn a_directory_of_the_programs_name_is_passed_over() -> Outcome {
    let place = Place::new();
    place.directory("one/tool");
    place.says("two/tool", "two");
    let path = env::join_paths([place.at("one"), place.at("two")])?;
    assert_eq!(Look { directory: Path::new("/"), path: path.to_str() }.says("tool").await?, "two");
    Ok(())
}

#[on_every_executor]
async fn what_is_no_directory_on_path_is_passed_over() -> Outcome {
    let place = Place::new();
    let file = place.file("file", "");
    place.says("bin/tool", "tool");
    let path = env::join_paths([&file, &place.at("gone"), &place.at("bin")])?;
    assert_eq!(Look { directory: Path::new("/"), path: path.to_str() }.says("tool").await?, "tool");
    Ok(())
}

#[on_every_executor]
async fn links_are_followed() -> Outcome {
    let place = Place::new();
    place.executable("real", "#!/bin/sh\nbasename \"$0\"\n");
    std::os::unix::fs::symlink("real", place.at("link"))?;
    std::os::unix::fs::symlink("gone", place.at("dangling"))?;
    let path = text(place.path());
    let look = Look { directory: Path::new("/"), path: Some(path) };
    // A script learns its name from the path that was executed; basename is not on this PATH.
    let mut link = Command::new("link");
    link.env("PATH", format!("{path}:/usr/bin:/bin"));
    assert_eq!(link.read().await?, "link");
    assert!(look.says("dangling").await.unwrap_err().is_not_found());
    Ok(())
}

#[on_every_executor]
async fn odd_names_are_found() -> Outcome {
    let place = Place::new();
    for name in ["two words", "-l", "it's", "$x", "grün", "a\nb", "=", "~"] {
        place.says(&format!("bin/{name}"), "found");
        let mut command = Command::new(name);
        assert_eq!(command.env("PATH", place.at("bin")).read().await?, "found", "{name}");
        assert_eq!(Command::at(place.at("bin").join(name))?.read().await?, "found", "{name}");
    }
    Ok(())
}

#[on_every_executor]
async fn an_explicit_path_is_that_file() -> Outcome {
    // A script that is named like a program on PATH.
    let place = Place::new();
    let script = place.says("ls", "this one");
    assert_eq!(Command::at(&script)?.read().await?, "this one");
    assert_eq!(Command::new(&script).read().await?, "this one");
    assert_eq!(Command::find(&script)?.read().await?, "this one");
    // It stays that file wherever it is run.
    assert_eq!(Command::at(&script)?.current_dir("/").env("PATH", "/nowhere").read().await?, "this one");
    // And it has to be one that can be executed, which is known before anything is run.
    place.file("plain", "#!/bin/sh\n");
    let error = Command::at(place.at("plain")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotExecutable);
    assert_eq!(error.path(), Some(place.at("plain").as_path()));
    assert_eq!(Command::at(place.path()).unwrap_err().kind(), ErrorKind::NotExecutable);
    Ok(())
}

/// Where we differ from a shell, on purpose: it would read such a file itself.
#[on_every_executor]
async fn a_script_without_an_interpreter_line_is_refused() -> Outcome {
    let place = Place::new();
    let script = place.executable("script", "echo hello\n");
    let error = Command::new(&script).read().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotExecutable);
    assert!(error.to_string().contains("begins with `#!`"), "{error}");
    assert_eq!(sh("exec \"$0\"").arg(&script).read().await?, "hello");
    Ok(())
}

#[cfg(target_os = "linux")]
#[on_every_executor]
async fn a_missing_loader_is_named() -> Outcome {
    let place = Place::new();
    let program = place.at("program");
    let mut bytes = std::fs::read("/bin/true")?;
    let Some(start) = bytes.windows(4).position(|window| window == b"/lib") else { return Err("no loader".into()) };
    let end = start + bytes[start..].iter().position(|byte| *byte == 0).unwrap();
    bytes[end - 1] = b'!';
    let loader = std::str::from_utf8(&bytes[start..end])?.to_owned();
    // Not by this process, whose children would have it open.
    std::fs::write(place.at("bytes"), &bytes)?;
    Command::new("cp").args([place.at("bytes"), program.clone()]).run().await?;
    place.mode("program", 0o755);
    let error = Command::new(&program).read().await.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    assert!(error.to_string().contains(&format!("needs the loader `'{loader}'`, which does not exist")), "{error}");
    Ok(())
}

#[cfg(not(target_os = "linux"))]
#[on_every_executor]
async fn a_missing_loader_is_named() -> Outcome {
    Ok(())
}

/// Written by this process, while its other threads start children: each has what is open here until its exec.
#[on_every_executor]
async fn a_program_just_written_runs() -> Outcome {
    const THREADS: usize = 4;
    const ROUNDS: usize = 60;
    let place = Place::new();
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let path = place.at(&format!("tool-{thread}"));
            std::thread::spawn(move || {
                for round in 0..ROUNDS {
                    let _ = std::fs::remove_file(&path);
                    std::fs::write(&path, format!("#!/bin/sh\necho {round}\n")).unwrap();
                    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
                    let mut command = Command::new(&path);
                    // In place, and off-thread.
                    if round % 2 == 1 {
                        command.process_group(0);
                    }
                    let said = loop {
                        match futures_lite::future::block_on(command.read()) {
                            // On a busy machine a child of another thread can take longer to its exec than is waited for.
                            // But that long it is waited for.
                            Err(error) if error.to_string().contains("is being written") => {
                                assert!(error.elapsed() >= Some(Duration::from_millis(100)), "{error:?}");
                            }
                            said => break said.unwrap(),
                        }
                    };
                    assert_eq!(said, round.to_string());
                }
            })
        })
        .collect();
    smol::unblock(|| threads.into_iter().try_for_each(std::thread::JoinHandle::join)).await.unwrap();
    Ok(())
}

#[on_every_executor]
async fn a_program_that_is_being_written_is_refused() -> Outcome {
    let place = Place::new();
    let tool = place.says("tool", "tool");
    // By another process: what this one has open, children of other tests would have as well, for as long as they wait.
    let mut writer = std::process::Command::new("sh")
        .args(["-c", "exec 3>>\"$0\"; echo open; read -r _"])
        .arg(&tool)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    BufReader::new(writer.stdout.take().unwrap()).read_line(&mut said)?;
    assert_eq!(said, "open\n");
    for group in [None, Some(0)] {
        let mut command = Command::new(&tool);
        group.map(|group| command.process_group(group));
        let error = command.read().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotExecutable);
        assert!(error.to_string().contains("is being written"), "{error}");
    }
    drop(writer.stdin.take());
    writer.wait()?;
    assert_eq!(Command::new(&tool).read().await?, "tool");
    Ok(())
}

#[on_every_executor]
async fn a_missing_name_says_where_it_was_looked_for() -> Outcome {
    let mut command = Command::new("no-such-tool");
    let error = command.env("PATH", "/first:/second one::relative").read().await.unwrap_err();
    assert!(error.is_not_found());
    let text = error.to_string();
    assert!(text.contains("no program `no-such-tool` on PATH"), "{text}");
    for place in ["/first", "'/second one'", "relative"] {
        assert!(text.contains(place), "{place} in {text}");
    }
    Ok(())
}

#[on_every_executor]
async fn a_bad_path_is_an_error_that_names_it() -> Outcome {
    for path in ["/no/such/file", "/etc/passwd/tool", "./no/such/file"] {
        let error = Command::new(path).read().await.unwrap_err();
        assert!(error.is_not_found(), "{error:?}");
        assert!(error.to_string().contains(path), "{error}");
        assert_eq!(error.path(), Some(Path::new(path)));
        let error = Command::find(path).unwrap_err();
        assert!(error.is_not_found() && error.command() == Some(path), "{error}");
        let error = Command::at(path).unwrap_err();
        assert!(error.is_not_found() && error.command() == Some(path), "{error}");
    }
    Ok(())
}

#[on_every_executor]
async fn only_programs_that_can_not_run_are_told_from_none() -> Outcome {
    let place = Place::new();
    let plain = place.file("bin/tool", "text");
    let error = Command::new("tool").env("PATH", place.at("bin")).read().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotExecutable);
    assert_eq!(error.path(), Some(plain.as_path()));
    Ok(())
}

#[on_every_executor]
async fn find_looks_here_and_now(itself: Itself) -> Outcome {
    if !itself.is_child() {
        let place = Place::new();
        place.says("one/tool", "one");
        place.says("two/tool", "two");
        let path = env::join_paths([Path::new("one"), Path::new("two"), Path::new("/usr/bin"), Path::new("/bin")])?;
        let mut child = itself.command();
        child.current_dir(place.path()).env("PATH", path).env("SUITE_PLACE", place.path());
        return passes(&child).await.map(|_| ());
    }
    let place = env::var("SUITE_PLACE")?;
    let tool = Command::find("tool")?;
    assert_eq!(tool.to_string(), format!("{place}/one/tool"), "absolute, though PATH is not");
    assert_eq!(Command::find("two/tool")?.to_string(), format!("{place}/two/tool"));
    assert!(Command::find("two/no-such-tool").unwrap_err().is_not_found());
    let error = Command::find("no-such-tool").unwrap_err();
    assert!(error.is_not_found());
    assert!(
        error.to_string().ends_with("no program `no-such-tool` on PATH, which is one, two, /usr/bin, /bin"),
        "{error}"
    );

    // What was found stays what it is.
    let mut elsewhere = tool.clone();
    elsewhere.current_dir("/").env("PATH", format!("{place}/two"));
    assert_eq!(elsewhere.read().await?, "one");
    assert_eq!(Command::new("tool").current_dir("/").env("PATH", format!("{place}/two")).read().await?, "two");
    std::fs::remove_file(format!("{place}/one/tool"))?;
    assert!(tool.read().await.unwrap_err().is_not_found());
    assert_eq!(Command::find("tool")?.read().await?, "two");
    Ok(())
}

#[on_every_executor]
async fn at_looks_here_and_now(itself: Itself) -> Outcome {
    if !itself.is_child() {
        let place = Place::new();
        place.says("ls", "the local one");
        place.directory("there");
        let mut child = itself.command();
        child.current_dir(place.path()).env("SUITE_PLACE", place.path());
        return passes(&child).await.map(|_| ());
    }
    let place = env::var("SUITE_PLACE")?;
    let ls = Command::at("ls")?;
    assert_eq!(ls.to_string(), format!("{place}/ls"));
    assert_eq!(ls.read().await?, "the local one");
    assert_eq!(ls.clone().current_dir("there").read().await?, "the local one");
    assert_eq!(ls.clone().current_dir("/").read().await?, "the local one");
    assert!(Command::at("sh").unwrap_err().is_not_found(), "PATH is not searched");
    // A relative directory is relative to here, and a relative program to that directory.
    assert_eq!(Command::new("../ls").current_dir("there").read().await?, "the local one");
    Ok(())
}

#[on_every_executor]
async fn this_programs_path_is_the_childs_unless_changed(itself: Itself) -> Outcome {
    if !itself.is_child() {
        let place = Place::new();
        place.says("bin/tool", "from PATH");
        let mut child = itself.command();
        // Relative to where the tool is run, not to where this is.
        child.env("PATH", "bin:/usr/bin:/bin").env("SUITE_PLACE", place.path());
        return passes(&child).await.map(|_| ());
    }
    let place = env::var("SUITE_PLACE")?;
    assert!(Command::new("tool").read().await.unwrap_err().is_not_found());
    assert_eq!(Command::new("tool").current_dir(&place).read().await?, "from PATH");
    assert_eq!(Command::new("tool").current_dir(&place).env("OTHER", "1").read().await?, "from PATH");
    env::set_current_dir(Path::new(&place).join("bin"))?;
    for path in ["", ":/usr/bin", ".", "../bin"] {
        assert_eq!(Command::new("tool").env("PATH", path).read().await?, "from PATH", "{path}");
    }
    env::set_current_dir(Path::new(&place).parent().unwrap())?;
    let relative = Path::new(&place).file_name().unwrap();
    assert_eq!(Command::new("tool").current_dir(relative).read().await?, "from PATH");
    assert_eq!(Command::new("bin/tool").current_dir(relative).read().await?, "from PATH");
    Ok(())
}
