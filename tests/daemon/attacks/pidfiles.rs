//! A pidfile that says something else: it is for people, and nobody here believes it.

use std::os::unix::fs::symlink;

use deluxe_process::daemon::{Delivery, State};
use futures_lite::future::block_on;

use crate::attacks::scene::{Bystander, Scene, until};

/// Everything that a controller does, while `forge` is done to the pidfile before each of it.
fn goes_on_as_if_nothing_had_happened(scene: &Scene, forge: impl Fn()) {
    // Stopped.
    forge();
    assert_eq!(block_on(scene.of().state()).unwrap(), State::Stopped);
    assert_eq!(scene.pid(), None);
    assert_eq!(block_on(scene.of().signal_user1()).unwrap(), Delivery::NotRunning);
    assert!(!block_on(scene.of().stop()).unwrap().was_running());
    forge();
    // Running.
    let pid = scene.start();
    forge();
    assert_eq!(scene.pid(), Some(pid));
    let again = block_on(scene.controller().start()).unwrap();
    assert!(again.was_already_running() && again.pid() == pid);
    assert_eq!(block_on(scene.of().signal_user1()).unwrap(), Delivery::Delivered);
    until(|| scene.log().contains(&format!("user1 {pid}")).then_some(()));
    forge();
    let new = block_on(scene.controller().restart()).unwrap();
    assert!(!new.was_already_running() && new.pid() != pid);
    assert_eq!(scene.shown(), format!("{}\n", new.pid()));
    forge();
    scene.stop();
    assert!(!scene.pidfile().is_symlink() && !scene.pidfile().exists());
    scene.is_as_new();
}

pub(crate) fn nonsense_in_it(scene: &Scene) {
    for text in [
        "-1\n",
        "0\n",
        "1\n",
        "-2\n",
        "4194305\n",
        "99999999999999999999\n",
        "1 2 3\n",
        "\u{0}\u{1}",
        "",
        "\n",
        "garbage",
    ] {
        goes_on_as_if_nothing_had_happened(scene, || std::fs::write(scene.pidfile(), text).unwrap());
    }
    goes_on_as_if_nothing_had_happened(scene, || std::fs::write(scene.pidfile(), [0xff; 100_000]).unwrap());
}

pub(crate) fn somebody_elses_number_in_it(scene: &Scene) {
    let bystander = Bystander::new();
    let number = format!("{}\n", bystander.pid());
    goes_on_as_if_nothing_had_happened(scene, || std::fs::write(scene.pidfile(), &number).unwrap());
    bystander.must_be_unharmed();
}

pub(crate) fn deleted(scene: &Scene) {
    goes_on_as_if_nothing_had_happened(scene, || {
        let _ = std::fs::remove_file(scene.pidfile());
    });
}

/// What the link leads to is neither read, nor written, nor removed.
pub(crate) fn a_link_in_its_place(scene: &Scene) {
    let treasure = scene.path.join("treasure");
    let bystander = Bystander::new();
    std::fs::write(&treasure, bystander.pid().to_string()).unwrap();
    for place in [scene.pidfile(), scene.directory().join(".worker.pid.new")] {
        goes_on_as_if_nothing_had_happened(scene, || {
            let _ = std::fs::remove_file(&place);
            symlink(&treasure, &place).unwrap();
        });
        assert_eq!(std::fs::read_to_string(&treasure).unwrap(), bystander.pid().to_string());
    }
    bystander.must_be_unharmed();
}

pub(crate) fn a_directory_in_its_place(scene: &Scene) {
    goes_on_as_if_nothing_had_happened(scene, || {
        let _ = std::fs::remove_file(scene.pidfile());
        std::fs::create_dir_all(scene.pidfile()).unwrap();
    });
    // One with something in it is not ours to remove: a start says so, and nothing runs.
    std::fs::create_dir(scene.pidfile()).unwrap();
    std::fs::write(scene.pidfile().join("treasure"), "").unwrap();
    let error = block_on(scene.controller().start()).unwrap_err();
    assert_eq!(error.path(), Some(&*scene.pidfile()), "{error:?}");
    assert_eq!(block_on(scene.of().state()).unwrap(), State::Stopped);
    std::fs::remove_dir_all(scene.pidfile()).unwrap();
    // The daemon is stopped all the same when it comes between.
    scene.start();
    std::fs::remove_file(scene.pidfile()).unwrap();
    std::fs::create_dir(scene.pidfile()).unwrap();
    std::fs::write(scene.pidfile().join("treasure"), "").unwrap();
    scene.stop();
    std::fs::remove_dir_all(scene.pidfile()).unwrap();
    scene.is_as_new();
}

/// What a killed daemon has left half-written is neither in the way nor left for ever.
pub(crate) fn left_half_written(scene: &Scene) {
    let temporary = scene.directory().join(".worker.pid.new");
    std::fs::write(&temporary, "12").unwrap();
    std::fs::create_dir(scene.directory().join(".worker.pid")).unwrap();
    scene.start();
    scene.stop();
    assert!(!temporary.exists());
    std::fs::create_dir(&temporary).unwrap();
    scene.start();
    scene.stop();
    std::fs::remove_dir(scene.directory().join(".worker.pid")).unwrap();
    scene.is_as_new();
}
