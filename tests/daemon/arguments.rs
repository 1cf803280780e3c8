//! A daemon's arguments: a value of its author's own type, whatever serde makes of it, seen by nobody else.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use deluxe_process::daemon::Context;
use deluxe_process::{BoxError, Controller, Daemon, ErrorKind};
use futures_lite::future;
use serde::{Deserialize, Serialize, Serializer};

use crate::cast::{Actor, Blob, Common, Keeper, Loose, Shape, Tagged, Wide, fingerprint};
use crate::script::{Act, note};
use crate::site::{Site, others_of_this_case};
use testkit::Outcome;

fn keeper(site: &Site, bytes: Vec<u8>) -> Keeper {
    Keeper {
        journal: site.journal().0.to_string_lossy().into_owned(),
        shapes: vec![
            Shape::Unit,
            Shape::Newtype(u32::MAX),
            Shape::Tuple(7, "seven".into()),
            Shape::Struct { x: -1, y: Some(Box::new(Shape::Struct { x: 1, y: None })) },
        ],
        loose: vec![
            Loose::Number(u64::MAX),
            Loose::Text("7".into()),
            Loose::Point { x: 0.1, y: -0.0 },
            Loose::List(vec![Loose::Number(0), Loose::List(vec![])]),
        ],
        common: Common { verbose: true, rest: BTreeMap::from([("depth".into(), 3), ("with a space".into(), 0)]) },
        absent: None,
        present: Some(0),
        nested: Some(None),
        bytes: Blob(bytes),
        numbers: BTreeMap::from([(i64::MIN, "least".into()), (0, String::new()), (i64::MAX, "most".into())]),
        pairs: BTreeMap::from([((0, 'a'), vec![]), ((255, '\u{10ffff}'), vec![f64::INFINITY, 1e-300])]),
        tagged: Tagged::FirstKind { value: 1 },
        extremes: (u64::MAX, i64::MIN, f64::MIN_POSITIVE, '\0', "\0 \u{fffd} \"quoted\" \n".into()),
        wide: Wide(i128::MIN, u128::MAX),
        flags: BTreeMap::from([(false, Err("no".into())), (true, Ok(1))]),
        no_numbers: (f64::NAN, vec![f32::NAN, -0.0, 1.5]),
        left_out: 0,
        renamed: true,
    }
}

/// What the daemon shows of itself is what the test would show of the same value.
fn assert_arrived(site: &Site, sent: &Keeper) {
    let mut shown = sent.clone();
    let bytes = std::mem::replace(&mut shown.bytes, Blob(Vec::new()));
    // Its own representation of `Some(None)` is that of `None` in every format without a word for it.
    shown.nested = None;
    let lines = site.journal().lines();
    assert_eq!(lines[lines.len() - 2..], [fingerprint(&bytes.0), format!("{shown:?}")]);
}

pub(crate) async fn every_shape_of_serde(site: Site) -> Outcome {
    for variant in [Tagged::FirstKind { value: 1 }, Tagged::SecondKind] {
        let mut sent = keeper(&site, (0..=255).collect());
        sent.tagged = variant;
        let controller = site.controller(sent.clone());
        controller.start().await?;
        assert_arrived(&site, &sent);
        controller.stop().await?;
    }
    // What is marked to be left out, is.
    let mut sent = keeper(&site, vec![]);
    sent.left_out = 9;
    let controller = site.controller(sent.clone());
    controller.start().await?;
    sent.left_out = 0;
    assert_arrived(&site, &sent);
    controller.stop().await?;
    Ok(())
}

pub(crate) async fn twenty_megabytes(site: Site) -> Outcome {
    let mut state = 1u32;
    let mut bytes = vec![0; 20_000_000];
    for chunk in bytes.chunks_mut(4) {
        // A generator by Marsaglia: no part is like another.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        chunk.copy_from_slice(&state.to_ne_bytes()[..chunk.len()]);
    }
    let sent = keeper(&site, bytes);
    let controller = site.controller(sent.clone());
    controller.start().await?;
    assert_arrived(&site, &sent);
    controller.restart().await?;
    assert_arrived(&site, &sent);
    assert_eq!(site.journal().lines().len(), 4);
    controller.stop().await?;
    Ok(())
}

/// While the daemon is being set up, and when it runs.
pub(crate) async fn secrets_are_nowhere(site: Site) -> Outcome {
    // Made here, so that it is not in this program's own command line, either.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
    let secret = format!("secret-{now:x}-{:x}", std::process::id());
    let mut actor = site.idle();
    actor.setup = vec![note("setup begins"), site.gate("go")];
    // Part of the arguments, and never done.
    actor.at_exit = vec![Act::Gate(site.at("go")), Act::Stdout(secret.clone())];
    let controller: Controller<Actor> = site.controller(actor);
    assert!(!format!("{controller:?}").contains(&secret));
    let looked = async {
        site.journal().until("setup begins").await;
        assert_seen_nowhere(&site, &secret);
        site.open_gate("go");
    };
    let (started, ()) = future::zip(controller.start(), looked).await;
    started?;
    assert_seen_nowhere(&site, &secret);
    controller.stop().await?;
    assert_seen_nowhere(&site, &secret);
    // Nor in the error of a start that failed.
    let mut actor = site.idle();
    actor.setup = vec![Act::Fail(vec!["no".into()])];
    actor.user1 = vec![note(&secret)];
    let error = site.controller(actor).start().await.unwrap_err();
    assert!(!format!("{error:?} {error:#}").contains(&secret));
    Ok(())
}

fn assert_seen_nowhere(site: &Site, secret: &str) {
    let contains = |bytes: &[u8]| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
    // The search finds what is there.
    assert!(contains(format!("a {secret} b").as_bytes()));
    let mut processes = 0;
    for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        for name in ["cmdline", "environ"] {
            if let Ok(bytes) = fs::read(entry.path().join(name)) {
                processes += 1;
                assert!(!contains(&bytes), "{}", entry.path().join(name).display());
            }
        }
    }
    assert!(processes >= 2 * (1 + others_of_this_case().len()));
    let mut directories = vec![site.at("")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap().filter_map(Result::ok) {
            let path = entry.path();
            // What comes and goes while we look is no file that stays.
            if path.is_dir() {
                directories.push(path);
            } else if is_plain(&path) {
                assert!(!contains(&fs::read(&path).unwrap_or_default()), "{}", path.display());
            }
        }
    }
}

fn is_plain(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|file| file.is_file())
}

#[derive(Deserialize)]
struct Unspeakable;

impl Serialize for Unspeakable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("there are no words for it"))
    }
}

impl Daemon for Unspeakable {
    const NAME: &'static str = "unspeakable";

    async fn run(&self, _: &Context) -> Result<(), BoxError> {
        Ok(())
    }
}

pub(crate) async fn what_cannot_be_serialised_is_refused(site: Site) -> Outcome {
    let controller = site.controller(Unspeakable);
    let error = controller.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(format!("{error:#}").contains("there are no words for it"), "{error:#}");
    // All else needs no arguments.
    assert!(!controller.stop().await?.was_running());
    assert_eq!(others_of_this_case(), [0; 0]);
    Ok(())
}

/// Named as a daemon that the program has, but with other fields: as of another version of the program.
#[derive(Serialize, Deserialize)]
struct Impostor {
    journal: u8,
}

impl Daemon for Impostor {
    const NAME: &'static str = "actor";

    async fn run(&self, _: &Context) -> Result<(), BoxError> {
        Ok(())
    }
}

pub(crate) async fn what_cannot_be_read_back_is_refused(site: Site) -> Outcome {
    let error = site.controller(Impostor { journal: 1 }).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    assert!(error.to_string().contains("`actor`"), "{error}");
    assert!(format!("{error:#}").len() > error.to_string().len(), "serde's own words are the cause: {error:#}");
    assert_eq!(others_of_this_case(), [0; 0]);
    let controller = site.controller(site.idle());
    controller.start().await?;
    controller.stop().await?;
    Ok(())
}
