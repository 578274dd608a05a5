//! Where ledgers in files are put, and what a sync takes there.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use tempfile::TempDir;
use tollgate::cli::loadtest::measure::median;

/// What is written before each sync.
const BLOCK: [u8; 4_096] = [7; 4_096];

/// Blocks of the file that is written over and over.
const BLOCKS: u64 = 256;

/// A disk.
pub struct Disk {
    /// File system and device.
    pub name: String,
    /// Median time of a block written and synced.
    pub sync_nanos: u64,
}

/// A folder that is gone with this value, where target/ is: that is a disk, /tmp need not be one.
pub fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

/// Writes and syncs so many times.
pub fn measure(times: usize) -> Disk {
    let folder = folder();
    let file = File::create(folder.path().join("blocks")).expect("a file");
    let write = |nth: u64| {
        file.write_all_at(&BLOCK, nth % BLOCKS * BLOCK.len() as u64).expect("room on the disk");
    };
    // The file has its size, as a ledger that runs has: a sync then writes what was written.
    (0..BLOCKS).for_each(write);
    file.sync_all().expect("a disk that syncs");
    let sync = |nth: usize| {
        let began = Instant::now();
        write(nth as u64 * 97);
        file.sync_data().expect("a disk that syncs");
        u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    };
    Disk { name: mounted(folder.path()), sync_nanos: median((0..times).map(sync).collect()) }
}

/// The file system of a path, as the kernel tells: the mount that is nearest above it.
fn mounted(path: &Path) -> String {
    let path = path.canonicalize().expect("a path that exists");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let above = mounts.lines().filter_map(|line| {
        let (place, about) = line.split_once(" - ")?;
        let point = place.split(' ').nth(4)?;
        let mut about = about.split(' ');
        let name = format!("{} ({})", about.next()?, about.next()?);
        path.starts_with(point).then_some((point.len(), name))
    });
    above.max_by_key(|(length, _)| *length).map_or("an unknown disk".to_owned(), |(_, name)| name)
}
