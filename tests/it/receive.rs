//! Uploads that come as a stream: cut anywhere, compressed anyhow, and by people who mean no good.

mod hostile;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use dorc::model::app::ReleaseBin;
use dorc::model::release::{Digest, ReleaseId};
use dorc::releases::receive::{ReceiveError, Receiver};
use dorc::releases::store::{Store, Taken};
use dorc::releases::upload::{Limits, TakeError, Upload};
use tempfile::TempDir;

/// A store that receives, and what belongs into it.
struct Place {
    root: TempDir,
    upload: Upload,
    store: Arc<Store>,
    receiver: Receiver,
}

impl Place {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&root.path().join("releases")).unwrap());
        let dir = root.path().join("upload");
        fs::create_dir(&dir).unwrap();
        let upload =
            Upload { dir, bin: ReleaseBin::Inside("web".into()), is_started: true, signed_by: Vec::new() };
        Self { receiver: Receiver::new(Arc::clone(&store), limits), root, upload, store }
    }

    /// A release directory with everything that a release may have.
    fn filled() -> Self {
        let place = Self::new();
        let script = "cd $1; mkdir -p a/b empty; printf '#!/bin/sh\\n' >web; chmod 755 web; echo text >a/b/text; chmod 4755 a/b/text; \
            echo more >a.b; ln -s ../a.b a/link; : >a/nothing; head -c 300000 /dev/urandom >a/big; umask 0; mkfifo -m 600 .f; rm .f";
        let dir = &place.upload.dir;
        assert!(Command::new("sh").args(["-ec", script, "sh"]).arg(dir).status().unwrap().success());
        place
    }

    /// What `tar` makes of the release directory.
    fn tar(&self, arguments: &[&str]) -> Vec<u8> {
        let mut tar = Command::new("tar");
        tar.arg("-c").args(arguments).current_dir(&self.upload.dir);
        let output = tar.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    /// What the release directory would be.
    fn by_directory(&self) -> Taken {
        let taken = || self.store.take(&self.upload, &Limits::default(), &AtomicBool::new(false));
        for _ in 0..100 {
            match taken() {
                // Another test that starts a process at that moment may lend it a file of ours.
                Err(TakeError::BeingWritten(_)) => std::thread::sleep(Duration::from_millis(10)),
                other => return other.unwrap(),
            }
        }
        taken().unwrap()
    }

    async fn receive(&self, stream: &[u8]) -> Result<Taken, TakeError> {
        let mut session = self.receiver.begin(self.upload.clone(), digest(stream), 0).await.unwrap();
        for part in stream.chunks(64 << 10) {
            session.push(Bytes::copy_from_slice(part)).await?;
        }
        session.finish().await
    }

    /// Sends the bytes from `offset` to `end`, and goes away.
    async fn send(&self, stream: &[u8], offset: usize, end: usize) {
        let begun = self.receiver.begin(self.upload.clone(), digest(stream), offset as u64).await;
        begun.unwrap().push(Bytes::copy_from_slice(&stream[offset..end])).await.unwrap();
    }

    async fn received(&self, stream: &[u8]) -> u64 {
        self.receiver.received(&self.upload, digest(stream)).await
    }

    /// The reason of a refusal, after which nothing is left.
    async fn refused(&self, stream: &[u8]) -> String {
        let reason = match self.receive(stream).await {
            Err(TakeError::Refused(refusal)) => refusal.to_string(),
            other => panic!("not refused: {other:?}"),
        };
        assert_eq!(self.in_store(), Vec::<String>::new(), "debris after: {reason}");
        reason
    }

    fn in_store(&self) -> Vec<String> {
        names(&self.root.path().join("releases"))
    }

    /// Waits until a thread that was given up has cleared away.
    async fn until_empty(&self) {
        for _ in 0..500 {
            if self.in_store().is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("debris: {:?}", self.in_store());
    }
}

fn names(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    fs::read_dir(dir).unwrap().map(name).collect()
}

fn digest(stream: &[u8]) -> Digest {
    Digest(*blake3::hash(stream).as_bytes())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

#[tokio::test]
async fn the_same_content_is_the_same_release_however_it_comes() {
    let place = Place::filled();
    let expected = place.by_directory();
    let plain = place.tar(&["."]);
    let (half, rest) = plain.split_at(plain.len() / 2);
    let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd(&plain)].concat();
    let cases = [
        ("without folders", place.tar(&["web", "a/b/text", "a.b", "a/link", "a/nothing", "a/big", "empty"])),
        ("PAX", place.tar(&["--format=pax", "--pax-option=globexthdr.name=g,comment=hello", "."])),
        ("gzip", gzip(&plain)),
        ("gzip in two parts", [gzip(half), gzip(rest)].concat()),
        ("zstd", zstd(&plain)),
        ("zstd in two frames", [zstd(half), zstd(rest)].concat()),
        ("zstd after a frame to be skipped", skippable),
        ("plain", plain),
    ];
    for (what, stream) in cases {
        let taken = place.receive(&stream).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(taken.digest, expected.digest, "{what}");
        assert_eq!((taken.files, taken.bytes), (expected.files, expected.bytes), "{what}");
    }
    let taken = place.receive(&place.tar(&["."])).await.unwrap();
    let dir = place.store.publish(taken, ReleaseId { number: 1, head: 1 }).unwrap();
    let modes = "cd $1; find . -printf '%M %p %l\\n' | sort -k2";
    let output = Command::new("sh").args(["-c", modes, "sh"]).arg(dir).output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    assert!(listed.contains("-rwxr-xr-x ./a/b/text"), "no setuid: {listed}");
    assert!(listed.contains("-rw-r--r-- ./a.b") && listed.contains("./a/link ../a.b"), "{listed}");
}

#[tokio::test]
async fn a_stream_that_is_cut_at_any_byte_goes_on_there() {
    let place = Place::new();
    fs::write(place.upload.dir.join("web"), "#!/bin/sh\n").unwrap();
    let plain = place.tar(&["--mode=755", "web"]);
    for stream in [zstd(&plain), gzip(&plain), plain[..1536].to_vec()] {
        for cut in 1..stream.len() {
            place.send(&stream, 0, cut).await;
            assert_eq!(place.received(&stream).await, cut as u64);
            place.send(&stream, cut, stream.len()).await;
            let begun =
                place.receiver.begin(place.upload.clone(), digest(&stream), stream.len() as u64).await;
            let taken = begun.unwrap().finish().await.unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
            assert_eq!((taken.files, taken.bytes), (1, 10));
        }
    }
    place.until_empty().await;
}

#[tokio::test]
async fn a_stream_that_ends_too_early_is_refused_at_any_byte() {
    let place = Place::new();
    fs::write(place.upload.dir.join("web"), "#!/bin/sh\n").unwrap();
    let plain = place.tar(&["--mode=755", "web"]);
    for stream in [zstd(&plain), gzip(&plain), plain[..1024].to_vec()] {
        for cut in 0..stream.len() {
            let begun = place.receiver.begin(place.upload.clone(), digest(&stream), 0).await;
            let mut session = begun.unwrap();
            // It may be refused before its end.
            let pushed = session.push(Bytes::copy_from_slice(&stream[..cut])).await;
            let result = if pushed.is_ok() { session.finish().await.map(drop) } else { pushed };
            assert!(matches!(result, Err(TakeError::Refused(_))), "cut at {cut}: {result:?}");
        }
    }
    place.until_empty().await;
    assert!(place.receive(&plain).await.is_ok());
}

#[tokio::test]
async fn what_is_not_what_its_digest_says_is_refused_and_the_right_one_is_not() {
    let place = Place::filled();
    let mut stream = place.tar(&["."]);
    let right = digest(&stream);
    let at = stream.len() - 1;
    stream[at] = 1;
    let mut session = place.receiver.begin(place.upload.clone(), right, 0).await.unwrap();
    session.push(Bytes::copy_from_slice(&stream)).await.unwrap();
    let error = session.finish().await.unwrap_err().to_string();
    drop(session);
    assert!(error.contains("not what was sent"), "{error}");
    assert_eq!(place.in_store(), Vec::<String>::new());
    stream[at] = 0;
    place.receive(&stream).await.unwrap();
}

#[tokio::test]
async fn there_is_one_at_a_time_and_another_one_takes_the_place_of_what_was_cut() {
    let place = Place::filled();
    let (one, other) = (place.tar(&["."]), place.tar(&["web"]));
    let mut first = place.receiver.begin(place.upload.clone(), digest(&one), 0).await.unwrap();
    assert_eq!(place.receiver.arrived(), None);
    first.push(Bytes::copy_from_slice(&one[..3000])).await.unwrap();
    assert_eq!(place.receiver.arrived(), Some(3000), "it is told though it is nobody's turn");
    for stream in [&one, &other] {
        let second = place.receiver.begin(place.upload.clone(), digest(stream), 0).await;
        assert!(matches!(second, Err(ReceiveError::Busy)));
    }
    drop(first);
    place.send(&one, 0, 5000).await;
    assert_eq!(place.receiver.arrived(), Some(5000));
    let elsewhere = place.receiver.begin(place.upload.clone(), digest(&one), 4000).await;
    assert!(matches!(elsewhere, Err(ReceiveError::Elsewhere(5000))));
    assert_eq!(place.receive(&other).await.unwrap().files, 1);
    assert_eq!((place.received(&one).await, place.receiver.arrived()), (0, None));
    place.until_empty().await;
    place.send(&one, 0, 5000).await;
    place.receiver.close().await;
    assert_eq!(place.in_store(), Vec::<String>::new(), "an end waits until nothing is left");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_goes_on_with_is_forgotten() {
    let place = Place::filled();
    let stream = place.tar(&["."]);
    place.send(&stream, 0, 5000).await;
    tokio::time::sleep(Duration::from_secs(9 * 60)).await;
    assert_eq!(place.received(&stream).await, 5000);
    tokio::time::sleep(Duration::from_secs(2 * 60)).await;
    assert_eq!(place.received(&stream).await, 0);
    place.until_empty().await;
}

#[tokio::test]
async fn a_disk_that_gets_full_is_told_and_leaves_nothing() {
    let mut place = Place::filled();
    let mount = place.root.path().join("small");
    fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(&mount).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: a small file system can't be mounted here");
        return;
    }
    place.store = Arc::new(Store::open(&mount.join("releases")).unwrap());
    place.receiver = Receiver::new(Arc::clone(&place.store), Limits::default());
    fs::write(place.upload.dir.join("large"), vec![1; 4 << 20]).unwrap();
    let result = place.receive(&place.tar(&["."])).await;
    fs::remove_file(place.upload.dir.join("large")).unwrap();
    let left = names(&mount.join("releases"));
    let again = place.receive(&place.tar(&["."])).await.map(drop);
    assert!(Command::new("umount").arg("-l").arg(&mount).status().unwrap().success());
    let error = result.unwrap_err().to_string();
    assert!(error.contains("no room"), "{error}");
    assert_eq!(left, Vec::<String>::new());
    again.unwrap();
}
