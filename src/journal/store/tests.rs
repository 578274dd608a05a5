//! The disk as the writer meets it: counted, held up, full, torn and damaged.

use std::sync::atomic::AtomicU32;

use tempfile::TempDir;

use super::*;
use crate::charging::ids::{CallId, TenantId};
use crate::charging::units::Seconds;
use crate::journal::entry::{Command, Effect};
use crate::journal::{Journal, Settings, Status};
use crate::ledger::state::{Call, CallState};
use crate::ledger::{End, Ending};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a test has in its hands while the writer works.
#[derive(Default)]
struct Hands {
    syncs: AtomicU32,
    /// While it is held no sync ends.
    gate: tokio::sync::Mutex<()>,
    /// Whether the disk is full.
    full: std::sync::atomic::AtomicBool,
    /// Whether syncs fail.
    broken: std::sync::atomic::AtomicBool,
}

struct Watched(Arc<Hands>);

impl Medium for Watched {
    fn create(&mut self, path: &Path) -> io::Result<File> {
        Disk.create(path)
    }

    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        if self.0.full.load(Ordering::SeqCst) {
            // As a full disk does it: some of it is there.
            Disk.write(file, &bytes[..bytes.len() / 2])?;
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Disk.write(file, bytes)
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        self.0.syncs.fetch_add(1, Ordering::SeqCst);
        drop(self.0.gate.blocking_lock());
        match self.0.broken.load(Ordering::SeqCst) {
            true => Err(io::Error::other("input/output error")),
            false => Disk.sync(file),
        }
    }
}

fn settings(folder: &TempDir) -> Settings {
    Settings { folder: folder.path().join("journal"), keep: PATIENCE, most_bytes: 1 << 20 }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a directory for the test")
}

fn open(folder: &TempDir) -> Arc<Journal> {
    Arc::new(Journal::open(&settings(folder)).expect("it can be opened"))
}

fn watched(folder: &TempDir) -> (Arc<Journal>, Arc<Hands>) {
    let hands = Arc::new(Hands::default());
    let journal = Journal::open_on(&settings(folder), Box::new(Watched(hands.clone())));
    (Arc::new(journal.expect("it can be opened")), hands)
}

fn tenant() -> TenantId {
    TenantId::literal("contoso")
}

fn settle(call: &str, used: i64) -> Command {
    let end = End {
        tenant: tenant(),
        call: CallId::new(call).expect("a call id"),
        how: Ending::Settle(Seconds(used)),
        report: vec![],
        ended_retention: Seconds(60),
        has_grant: false,
    };
    Command::End { end, token: String::new() }
}

fn note(journal: &Journal, call: &str) {
    let id = CallId::new(call).expect("a call id");
    let call = Call::new(CallState::Ringing, Millis(1));
    let call = std::borrow::Cow::Borrowed(&call);
    journal.note(
        &tenant(),
        Millis(1),
        Mark::default(),
        Effect::Authorized { id, call, leases: vec![] },
    );
}

async fn until(journal: &Journal, right: impl Fn(&Status) -> bool) -> Status {
    let patience = Instant::now() + PATIENCE;
    loop {
        let status = journal.status();
        if right(&status) {
            return status;
        }
        assert!(Instant::now() < patience, "{status:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn used(journal: &Journal) -> Vec<(String, i64)> {
    let todo = journal.next(1000);
    let one = |todo: &Arc<Todo>| {
        let used = todo.command.used().unwrap_or_default();
        (todo.command.call().as_str().to_owned(), used.0)
    };
    todo.iter().map(one).collect()
}

fn files(folder: &TempDir) -> Vec<PathBuf> {
    let found = segments(&settings(folder).folder).expect("it can be read");
    found.into_iter().map(|(_, path)| path).collect()
}

#[tokio::test]
async fn settles_that_come_while_the_disk_is_busy_share_one_sync() {
    let folder = folder();
    let (journal, hands) = watched(&folder);
    let held = hands.gate.lock().await;
    let keep = |call: String| {
        let journal = journal.clone();
        tokio::spawn(async move { journal.keep(settle(&call, 60)).await })
    };
    let first = keep("first".to_owned());
    while hands.syncs.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let others: Vec<_> = (0..200).map(|number| keep(format!("call-{number}"))).collect();
    while journal.shared.queue.waiting().jobs.len() < 200 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!first.is_finished(), "nothing is accepted before it is durable");
    assert_eq!(journal.status().todo, 0);
    drop(held);
    first.await.expect("no panic").expect("it is kept");
    for other in others {
        other.await.expect("no panic").expect("it is kept");
    }
    let Status { todo, appended, syncs, .. } = journal.status();
    assert_eq!((todo, appended, syncs), (201, 201, 2));
}

#[tokio::test]
async fn what_the_ledger_has_done_is_written_without_being_waited_for() {
    let folder = folder();
    let journal = open(&folder);
    for number in 0..100 {
        note(&journal, &format!("call-{number}"));
    }
    let status = until(&journal, |status| status.appended == 100).await;
    assert!(status.syncs < 50, "{status:?}");
    assert_eq!((status.missed, status.trouble), (0, None));
    let mut read = vec![];
    let contents = crate::journal::read(&settings(&folder).folder, |sequence, done| {
        read.push((sequence, matches!(done.effect, Effect::Authorized { .. })));
    });
    assert_eq!(contents.expect("it can be read").done, 100);
    assert_eq!(read, (1..=100).map(|sequence| (sequence, true)).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_to_be_done_survives_a_restart_in_order_for_each_call() {
    let folder = folder();
    let journal = open(&folder);
    for (call, seconds) in [("a", 10), ("b", 20), ("a", 30), ("c", 40)] {
        journal.keep(settle(call, seconds)).await.expect("it is kept");
    }
    let expected = [("a", 10), ("b", 20), ("c", 40)].map(|(call, used)| (call.to_owned(), used));
    assert_eq!(used(&journal), expected);
    assert!(journal.holds(&settle("a", 10)) && journal.holds(&settle("a", 30)));
    assert!(!journal.holds(&settle("a", 20)));
    let first = journal.next(1).remove(0);
    journal.done(&first, "SETTLED", false);
    drop(journal);

    let journal = open(&folder);
    let expected = [("b", 20), ("a", 30), ("c", 40)].map(|(call, used)| (call.to_owned(), used));
    assert_eq!(used(&journal), expected);
    for todo in journal.next(10) {
        journal.done(&todo, "PARKED", todo.command.call().as_str() == "c");
    }
    assert!(journal.drained(None, PATIENCE).await);
    drop(journal);
    let journal = open(&folder);
    assert_eq!(used(&journal), []);
    let contents = crate::journal::read(&settings(&folder).folder, |_, _| {});
    let refused = contents.expect("it can be read").refused;
    assert_eq!(refused.len(), 1);
    assert_eq!((refused[0].0.command.name(), refused[0].1.result.as_str()), ("settle", "PARKED"));
}

#[tokio::test]
async fn a_full_disk_accepts_nothing_and_the_journal_goes_on_when_there_is_room() {
    let folder = folder();
    let (journal, hands) = watched(&folder);
    journal.keep(settle("before", 1)).await.expect("it is kept");
    hands.full.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let refused = journal.keep(settle("meanwhile", 2)).await;
        assert!(matches!(refused, Err(JournalError::Unwritable(_))), "{refused:?}");
    }
    note(&journal, "meanwhile");
    until(&journal, |status| status.missed == 1).await;
    let trouble = journal.status().trouble.expect("it is told");
    assert!(trouble.contains("cannot be written"), "{trouble}");
    hands.full.store(false, Ordering::SeqCst);
    journal.keep(settle("after", 3)).await.expect("it is kept");
    assert_eq!(journal.status().trouble, None);
    let expected = [("before", 1), ("after", 3)].map(|(call, used)| (call.to_owned(), used));
    assert_eq!(used(&journal), expected);
    drop(journal);
    let opened = super::open(&settings(&folder).folder, None).expect("it can be read");
    assert_eq!(opened.damage, vec![], "half a frame is taken back");
    assert_eq!(opened.todo.len(), 2);
}

#[tokio::test]
async fn a_settle_whose_sync_failed_is_not_accepted_and_another_segment_begins() {
    let folder = folder();
    let (journal, hands) = watched(&folder);
    journal.keep(settle("before", 1)).await.expect("it is kept");
    hands.broken.store(true, Ordering::SeqCst);
    let refused = journal.keep(settle("meanwhile", 2)).await;
    assert!(matches!(refused, Err(JournalError::Unwritable(_))), "{refused:?}");
    hands.broken.store(false, Ordering::SeqCst);
    journal.keep(settle("after", 3)).await.expect("it is kept");
    assert_eq!(files(&folder).len(), 2);
    assert!(!journal.holds(&settle("meanwhile", 2)));
}

#[tokio::test]
async fn a_journal_full_of_what_is_to_be_done_accepts_no_more_and_drops_none_of_it() {
    let folder = folder();
    let settings = Settings { most_bytes: 16 << 10, ..settings(&folder) };
    let journal = Journal::open(&settings).expect("it can be opened");
    let mut kept = 0;
    while journal.keep(settle(&format!("call-{kept}"), 60)).await.is_ok() {
        kept += 1;
    }
    assert!(kept > 20, "{kept} were kept");
    let status = journal.status();
    assert!(status.bytes <= 16 << 10, "{status:?}");
    assert!(status.trouble.expect("it is told").contains("full"));
    note(&journal, "missed");
    until(&journal, |status| status.missed == 1).await;
    assert_eq!(journal.next(1000).len(), kept);
    for todo in journal.next(1000) {
        journal.done(&todo, "SETTLED", false);
    }
    // Outcomes have room of their own, and make room for others.
    journal.keep(settle("again", 60)).await.expect("it is kept");
    assert_eq!(journal.status().trouble, None);
    drop(journal);
    let journal = Journal::open(&settings).expect("it can be opened");
    assert_eq!(used(&journal), [("again".to_owned(), 60)]);
}

#[tokio::test]
async fn what_is_old_goes_when_the_bound_is_reached() {
    let folder = folder();
    let settings = Settings { most_bytes: 64 << 10, ..settings(&folder) };
    let journal = Journal::open(&settings).expect("it can be opened");
    for round in 0..40 {
        for number in 0..40 {
            note(&journal, &format!("call-{round}-{number}"));
        }
        until(&journal, |status| status.appended == 40 * (round + 1)).await;
    }
    let status = journal.status();
    assert!(status.bytes <= 64 << 10, "{status:?}");
    assert_eq!((status.missed, status.trouble), (0, None));
    drop(journal);
    let mut sequences = vec![];
    crate::journal::read(&settings.folder, |sequence, _| sequences.push(sequence)).expect("read");
    assert_eq!(sequences.last(), Some(&1600));
    assert!(sequences.first() > Some(&100) && sequences.len() > 50, "{sequences:?}");
}

#[tokio::test]
async fn what_was_kept_long_enough_goes_but_not_what_is_to_be_done() {
    let folder = folder();
    let journal = open(&folder);
    note(&journal, "old");
    until(&journal, |status| status.appended == 1).await;
    drop(journal);
    let journal = open(&folder);
    journal.keep(settle("open", 60)).await.expect("it is kept");
    drop(journal);
    let lock = lock(&settings(&folder).folder).expect("nobody has it");
    let mut opened = super::open(&settings(&folder).folder, None).expect("it can be read");
    let shared = Arc::new(Shared::default());
    for todo in opened.todo.drain(..) {
        shared.add(todo);
    }
    let settings = settings(&folder);
    let mut writer = Writer::new(&settings, Box::new(Disk), lock, &mut opened, shared);
    assert_eq!(files(&folder).len(), 2);
    let later =
        |by: Duration| Millis(local_now().0 + i64::try_from(by.as_millis()).expect("a short time"));
    writer.retain(later(Duration::ZERO));
    assert_eq!(files(&folder).len(), 2);
    writer.retain(later(settings.keep * 2));
    assert_eq!(files(&folder).len(), 1, "the one with something to do stays");
}

#[tokio::test]
async fn what_fails_for_a_reason_of_its_own_is_left_alone_and_keeps_only_its_own_call_waiting() {
    let folder = folder();
    let journal = open(&folder);
    for (call, seconds) in [("a", 10), ("a", 20), ("b", 30)] {
        journal.keep(settle(call, seconds)).await.expect("it is kept");
    }
    let first = journal.next(1).remove(0);
    assert_eq!(journal.defer(&first), 1);
    assert_eq!(used(&journal), [("b".to_owned(), 30)]);
    assert_eq!(journal.defer(&first), 2);
    journal.done(&first, "CORRUPT", true);
    assert_eq!(used(&journal), [("a".to_owned(), 20), ("b".to_owned(), 30)]);
}

#[tokio::test]
async fn a_second_process_is_told_that_the_journal_is_taken() {
    let folder = folder();
    let journal = open(&folder);
    let second = Journal::open(&settings(&folder));
    assert_eq!(second.err(), Some(JournalError::Locked(settings(&folder).folder)));
    drop(journal);
    open(&folder);
}

/// A journal of four settles, of which the first is done, in one segment.
async fn small() -> (TempDir, PathBuf) {
    let folder = folder();
    let journal = open(&folder);
    for (call, seconds) in [("a", 10), ("b", 20), ("c", 30), ("d", 40)] {
        journal.keep(settle(call, seconds)).await.expect("it is kept");
    }
    let first = journal.next(1).remove(0);
    journal.done(&first, "SETTLED", false);
    drop(journal);
    let path = files(&folder).remove(0);
    (folder, path)
}

fn todo_of(folder: &TempDir) -> (Vec<i64>, usize) {
    let opened = super::open(&settings(folder).folder, None).expect("it can be read");
    let used = opened.todo.iter().filter_map(|todo| todo.command.used());
    (used.map(|used| used.0).collect(), opened.damage.len())
}

#[tokio::test]
async fn a_journal_torn_at_any_offset_keeps_every_whole_entry_and_is_cut_there() {
    let (folder, path) = small().await;
    let whole = fs::read(&path).expect("it can be read");
    let ends: Vec<usize> = {
        let scan = segment::scan(&whole, 0);
        let lengths = scan.frames.iter().map(|frame| segment::frame_length(frame.payload.len()));
        lengths
            .scan(segment::MAGIC.len(), |at, length| {
                *at += length;
                Some(*at)
            })
            .collect()
    };
    assert_eq!(ends.len(), 5);
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).expect("it can be written");
        let entries = ends.iter().filter(|end| **end <= cut).count();
        let expected: Vec<i64> = [10, 20, 30, 40].into_iter().take(entries).collect();
        assert_eq!(todo_of(&folder), (expected, 0), "torn at {cut}");
        if cut >= segment::MAGIC.len() {
            let left = fs::metadata(&path).expect("it is there").len();
            let end = ends.iter().rev().find(|end| **end <= cut).copied();
            assert_eq!(left, end.unwrap_or(segment::MAGIC.len()) as u64, "torn at {cut}");
        }
    }
}

#[tokio::test]
async fn a_journal_with_any_byte_flipped_loses_that_entry_alone_and_says_so() {
    let (folder, path) = small().await;
    let whole = fs::read(&path).expect("it can be read");
    let frames = segment::scan(&whole, 0).frames.len();
    assert_eq!(frames, 5);
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        fs::write(&path, &bytes).expect("it can be written");
        let (todo, damages) = todo_of(&folder);
        // Of the five entries one is hit at most: a settle is lost, or the outcome, or the head.
        let lost = [20, 30, 40].into_iter().filter(|used| !todo.contains(used)).count();
        assert!(lost <= 1, "{todo:?} at {at}");
        let cut = fs::metadata(&path).expect("it is there").len() < whole.len() as u64;
        assert!(damages == 1 || cut, "{damages} told at {at}");
    }
}

#[tokio::test]
async fn a_burst_of_more_than_a_small_journal_holds_is_written_segment_by_segment() {
    let folder = folder();
    let settings = Settings { most_bytes: 64 << 10, ..settings(&folder) };
    let hands = Arc::new(Hands::default());
    let journal = Journal::open_on(&settings, Box::new(Watched(hands.clone())));
    let journal = journal.expect("it can be opened");
    let held = hands.gate.lock().await;
    note(&journal, "first");
    while hands.syncs.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for number in 0..1_000 {
        note(&journal, &format!("call-{number}"));
    }
    drop(held);
    let status = until(&journal, |status| status.appended + status.missed == 1_001).await;
    assert_eq!((status.missed, status.trouble), (0, None));
    assert!(status.bytes <= 64 << 10, "{}", status.bytes);
}

/// What a sidecar was acknowledged by another name is not what the ledger has of this one.
#[test]
fn a_journal_whose_name_is_lost_goes_on_by_another_and_expects_nothing_of_the_ledger() {
    let folder = tempfile::tempdir().expect("a folder");
    let name = settings(&folder).folder.join("SIDECAR");
    let noted = |sequence| {
        let journal = Journal::open(&settings(&folder)).expect("a journal");
        let call = std::borrow::Cow::Owned(Call::new(CallState::Ringing, Millis(1)));
        let effect = Effect::Authorized { id: CallId::literal("call"), call, leases: vec![] };
        let found = (journal.sidecar().to_owned(), journal.marks().get(&tenant()).copied());
        journal.note(&tenant(), Millis(1), Mark { epoch: 0, sequence }, effect);
        found
    };
    let (first, none) = noted(500);
    assert_eq!(none, None);
    assert_eq!(noted(501), (first.clone(), Some(Mark { epoch: 0, sequence: 500 })));
    let mut before = first;
    let enormous = format!("{before} {}", u64::MAX);
    let others: [&[u8]; 4] = [b"", b"nonsense", &[0xff; 40], enormous.as_bytes()];
    for lost in std::iter::once(None).chain(others.map(Some)) {
        match lost {
            None => std::fs::remove_file(&name).expect("it was there"),
            Some(bytes) => std::fs::write(&name, bytes).expect("it can be written"),
        }
        let (second, expected) = noted(3);
        assert_ne!(second, before);
        assert_eq!(expected, None, "{lost:?}");
        // Not at the next start either, but what was acknowledged since.
        assert_eq!(noted(4), (second.clone(), Some(Mark { epoch: 0, sequence: 3 })), "{lost:?}");
        before = second;
    }
}
