//! Programs that behave, and programs that do not.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use super::*;

fn shell(script: &str) -> Program {
    Program::new(&["/bin/sh", "-c", script].map(str::to_owned))
}

async fn printed(program: &Program) -> Result<String, ProgramError> {
    let output = program.run(None).await?;
    Ok(String::from_utf8(output.expose().to_vec()).unwrap())
}

/// A program in a folder that only root can write in.
fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn program(path: &Path) -> Program {
    Program::new(&[path.display().to_string()])
}

fn exists(pid: &str) -> bool {
    Path::new(&format!("/proc/{}", pid.trim())).exists()
}

#[tokio::test]
async fn what_a_program_prints_comes_back_and_no_shell_reads_its_arguments() {
    let arguments = ["/bin/echo", "-n", "$HOME", "`id`", "a  b;", "*"].map(str::to_owned);
    assert_eq!(printed(&Program::new(&arguments)).await.unwrap(), "$HOME `id` a  b; *");
}

#[tokio::test]
async fn a_program_has_only_the_variables_that_were_named_and_nothing_to_read() {
    let env = Program::new(&["/usr/bin/env".to_owned()]);
    assert_eq!(printed(&env).await.unwrap(), "");
    let passing = env.passing(&["PATH".to_owned(), "NOT_THERE".to_owned()]);
    let path = std::env::var("PATH").unwrap();
    assert_eq!(printed(&passing).await.unwrap(), format!("PATH={path}\n"));
    assert_eq!(printed(&shell("cat; pwd")).await.unwrap(), "/\n");
}

#[tokio::test]
async fn what_is_given_to_its_input_arrives_whole() {
    let large = "0123456789abcdef".repeat(16 * 1024);
    let count = shell("wc -c").run(Some(Secret::new(large.clone().into_bytes()))).await.ok().unwrap();
    assert_eq!(String::from_utf8_lossy(count.expose()).trim(), large.len().to_string());
    // Whoever does not read it is not waited for.
    let ignores = shell("echo done").run(Some(Secret::new(large.into_bytes()))).await.ok().unwrap();
    assert_eq!(ignores.expose(), b"done\n");
}

#[tokio::test]
async fn a_slow_program_ends_with_all_that_it_started() {
    let folder = folder();
    let pids = folder.path().join("pids");
    let script = format!("sleep 600 & echo $! >{0}; echo $$ >>{0}; echo partial; wait", pids.display());
    let began = Instant::now();
    let error = printed(&shell(&script).within(Duration::from_secs(1))).await.unwrap_err();
    assert_eq!(error, ProgramError::TooSlow { path: "/bin/sh".into(), seconds: 1 });
    assert!(began.elapsed() < Duration::from_secs(3));
    let pids = fs::read_to_string(pids).unwrap();
    assert_eq!(pids.lines().count(), 2);
    std::thread::sleep(Duration::from_millis(200));
    let own = pids.lines().nth(1).unwrap();
    assert!(!exists(own), "it was reaped");
    let state = |pid: &str| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let other = state(pids.lines().next().unwrap());
    assert!(other.is_empty() || other.contains(") Z "), "{other}");
}

#[tokio::test]
async fn what_a_program_leaves_behind_is_neither_waited_for_nor_left_running() {
    let began = Instant::now();
    let told = printed(&shell("sleep 600 & echo $!")).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    std::thread::sleep(Duration::from_millis(200));
    let state = fs::read_to_string(format!("/proc/{}/stat", told.trim())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
    // One that leaves its group holds the pipe, and is not waited for either.
    let began = Instant::now();
    let told = printed(&shell("setsid sleep 8 & echo here")).await.unwrap();
    assert_eq!(told, "here\n");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_program_that_says_too_much_is_ended() {
    let error = printed(&shell("yes")).await.unwrap_err();
    assert_eq!(error, ProgramError::TooMuch { path: "/bin/sh".into(), bytes: MAX_OUTPUT_BYTES });
    let most = format!("head -c {MAX_OUTPUT_BYTES} /dev/zero");
    assert_eq!(printed(&shell(&most)).await.unwrap().len(), MAX_OUTPUT_BYTES);
    // Also on its standard error, which nobody keeps.
    let error = printed(&shell("yes >&2").within(Duration::from_secs(1))).await.unwrap_err();
    assert!(matches!(error, ProgramError::TooSlow { .. }), "{error}");
}

#[tokio::test]
async fn a_failure_says_the_status_and_nothing_of_what_was_printed() {
    let error = printed(&shell("echo CANARY; echo CANARY >&2; echo CANARY >&2; exit 3")).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("status 3") && text.contains("2 lines") && !text.contains("CANARY"), "{text}");
    let error = printed(&shell("kill -SEGV $$")).await.unwrap_err().to_string();
    assert!(error.contains("signal 11") && error.contains("no line"), "{error}");
}

#[tokio::test]
async fn a_program_that_others_can_change_is_not_run() {
    let folder = folder();
    let good = file(folder.path(), "good", "#!/bin/sh\necho run\n");
    assert_eq!(printed(&program(&good)).await.unwrap(), "run\n");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("good", &link).unwrap();
    assert_eq!(printed(&program(&link)).await.unwrap(), "run\n");

    let open = folder.path().join("open");
    fs::create_dir(&open).unwrap();
    let inside = file(&open, "inside", "#!/bin/sh\necho run\n");
    let through = folder.path().join("through");
    std::os::unix::fs::symlink(&inside, &through).unwrap();
    let by_script = file(folder.path(), "by-script", &format!("#!{}\n", inside.display()));
    assert_eq!(printed(&program(&through)).await.unwrap(), "run\n");
    assert!(printed(&program(&by_script)).await.is_ok());
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
    for path in [&inside, &through, &by_script] {
        let error = printed(&program(path)).await.unwrap_err();
        assert!(matches!(error, ProgramError::NotTrusted { .. }), "{error}");
    }

    let writable = file(folder.path(), "writable", "#!/bin/sh\n");
    fs::set_permissions(&writable, fs::Permissions::from_mode(0o757)).unwrap();
    let others = file(folder.path(), "others", "#!/bin/sh\n");
    std::os::unix::fs::chown(&others, Some(65_534), None).expect("this test needs root");
    let plain = file(folder.path(), "plain", "text");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    let relative = file(folder.path(), "relative", "#!sh\n");
    for path in
        [writable.as_path(), &others, &plain, &relative, folder.path(), Path::new("sh"), Path::new("")]
    {
        let error = printed(&program(path)).await.unwrap_err();
        assert!(matches!(error, ProgramError::NotTrusted { .. }), "{}: {error}", path.display());
    }
}

/// What the kernel says of a program that was started.
async fn status(user: Option<&str>) -> String {
    printed(&Program::new(&["/bin/cat".to_owned(), "/proc/self/status".to_owned()]).running_as(user))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_program_has_no_capability_and_no_way_to_one_also_when_it_is_root() {
    for (user, uid) in [(None, "0"), (Some("root"), "0"), (Some("nobody"), "65534")] {
        let status = status(user).await;
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(line(set), "0000000000000000", "{set} {user:?}");
        }
        assert_eq!(line("NoNewPrivs:"), "1");
        assert_eq!(line("Uid:").split_whitespace().collect::<Vec<_>>(), [uid; 4]);
        if user == Some("nobody") {
            assert_eq!(line("Groups:"), "");
            assert_eq!(line("Gid:").split_whitespace().collect::<Vec<_>>(), ["65534"; 4]);
        }
    }
    // The threads of the daemon keep what they have.
    assert!(!capabilities(None).unwrap().permitted.is_empty());
    assert!(!rustix::thread::no_new_privs().unwrap());
}

#[test]
fn without_the_powers_to_become_somebody_else_a_program_runs_as_the_daemon_or_not_at_all() {
    // As in the sandbox of the unit; of this thread alone.
    std::thread::spawn(|| {
        let all = capabilities(None).unwrap();
        let kept = all.permitted - CapabilitySet::SETUID - CapabilitySet::KILL;
        set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, ..all }).unwrap();
        let error = shell("true").running_as(Some("nobody")).execute(None).err().unwrap().to_string();
        assert!(error.contains("CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_KILL"), "{error}");
        assert_eq!(shell("echo run").execute(None).ok().unwrap().expose(), b"run\n");
    })
    .join()
    .unwrap();
}

#[tokio::test]
async fn a_program_inherits_no_open_file() {
    let _open = File::open("/dev/null").unwrap();
    // The descriptor of the folder that is listed itself, and the three.
    let told = printed(&Program::new(&["/bin/ls", "-1", "/proc/self/fd"].map(str::to_owned))).await.unwrap();
    assert_eq!(told, "0\n1\n2\n3\n");
}

#[tokio::test]
async fn a_program_of_another_user_is_ended_too_and_of_an_unknown_one_is_not_run() {
    let slow = shell("exec sleep 600").running_as(Some("nobody")).within(Duration::from_secs(1));
    assert!(matches!(printed(&slow).await.unwrap_err(), ProgramError::TooSlow { .. }));
    let error = printed(&shell("true").running_as(Some("not-there"))).await.unwrap_err();
    assert!(matches!(error, ProgramError::NotAs { .. }), "{error}");
}

#[tokio::test]
async fn a_program_ends_in_time_although_nobody_waits_for_it_any_more() {
    let folder = folder();
    let pid = folder.path().join("pid");
    let script = format!("echo $$ >{}; exec sleep 600", pid.display());
    let slow = shell(&script).within(Duration::from_secs(1));
    assert!(tokio::time::timeout(Duration::from_millis(500), slow.run(None)).await.is_err());
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!exists(&fs::read_to_string(pid).unwrap()));
}
