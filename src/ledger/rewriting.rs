//! Rewriting a journal: trimming old entries, erasing what others say.
//!
//! The same for every ledger: the journal is read in pages and written aside, then put in its place in
//! one step with what came meanwhile. Entries that stay keep their ids. Those that are trimmed are
//! replaced by openings under the last of their ids, so that a reader who has not yet read all of them
//! meets an opening and knows that it missed some.
//!
//! Calls are trimmed whole or not at all: one that went on after the cut, or that the ledger still keeps,
//! stays with all its entries. So the audit needs to know nothing of a trimmed call but sums.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use crate::charging::ids::{CallId, TenantId};
use crate::charging::units::{Micros, Millis, Seconds};
use crate::ledger::audit::{Life, Listed, Story, Sums, committed, is_overage, tell_blocks};
use crate::ledger::recharge::WalletStory;
use crate::ledger::state::{Block, Entry, EntryKind, Opening, Posting, StandingBlock};
use crate::ledger::{FinishRewrite, FinishedRewrite, Ledger, LedgerError};

/// Entries that are read and written at a time.
const PAGE: usize = 250;

/// Pages that are read between two signs of life.
const PAGES_PER_SIGN: usize = 20;

/// Most postings of an opening, and most blocks, unless there are too few ids for so many openings.
const PARTS: usize = 500;

/// Most openings of one trimming; of more than half a million buckets or blocks each has more.
const MOST_OPENINGS: usize = 1_000;

/// How long a reader of the journal may hold trimming up, and how long one is waited for that nobody has.
/// Nothing is lost by it that could still be sent: records are kept for at least 31 days, and a notice is
/// given up after at most as many.
pub const READERS_WAITED_FOR: Seconds = Seconds(72 * 3_600);

/// What to do to a journal.
pub struct Plan<E, N> {
    /// Names this rewriting, and no other.
    pub token: String,
    /// Entries before this instant are trimmed; `None`, or an instant before the last trimming's: none are.
    pub trim: Option<Millis>,
    /// Changes what an entry says, not what it moved; whether it did.
    pub erase: E,
    /// `erase` changes entries from the first instant on and before the second; `None`: any.
    pub erase_within: Option<(Millis, Millis)>,
    /// Makes the context of the entry that is left behind of the number of entries that were erased.
    pub note: N,
    /// Rewrites and notes also where nothing is to be trimmed or erased.
    pub always: bool,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Entries removed, openings among them.
    pub trimmed: u64,
    /// Openings in their place.
    pub openings: u64,
    /// Entries in which something was erased.
    pub erased: u64,
}

/// Why a journal was not rewritten. It is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// Somebody else rewrites it.
    #[error("the journal of tenant {0} is being rewritten by somebody else")]
    Busy(TenantId),
    /// The ledger gave no outcome.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Rewrites the journal of a tenant while calls go on.
///
/// Reads the journal twice, the part to be trimmed three times, in pages; once more where a correction is
/// met whose call was thought to be over. In memory at a time are the names of the calls of that part that
/// may still go on, or that were corrected. [`LedgerError::Indeterminate`] may come too late:
/// the journal may be the rewritten one.
pub async fn rewrite<L, E, N>(
    ledger: &L,
    tenant: &TenantId,
    mut plan: Plan<E, N>,
) -> Result<Rewritten, RewriteError>
where
    L: Ledger,
    E: FnMut(&mut Entry) -> bool + Send,
    N: Fn(u64) -> Vec<u8> + Send,
{
    if !ledger.begin_rewrite(tenant, &plan.token).await?.outcome {
        return Err(RewriteError::Busy(tenant.clone()));
    }
    // What was trimmed to a later instant has its openings there: others before them would part a bucket's
    // sums, and a lot would be opened twice.
    let done = ledger.upkeep(tenant).await?.outcome.trimmed;
    plan.trim = plan.trim.filter(|cut| *cut >= done);
    let token = plan.token.clone();
    let trimmed = plan.trim.unwrap_or_default();
    let erased = plan.erase_within.map_or(Millis::ZERO, |(_, before)| before);
    let work = Work { ledger, tenant, plan, written: 0, pages: 0, done: Rewritten::default() };
    match work.run().await {
        Ok(Some(done)) => Ok(done),
        Ok(None) => {
            ledger.abandon_rewrite(tenant, &token, trimmed, erased).await?;
            Ok(Rewritten::default())
        }
        Err(error) => {
            // What is left behind is thrown away by the next.
            let _ = ledger.abandon_rewrite(tenant, &token, Millis::ZERO, Millis::ZERO).await;
            Err(error)
        }
    }
}

/// The instant from which on readers of the journal still need it, such as those that send notices: nothing
/// from then on may be trimmed yet. `None`: each is at the end, or [was given up](READERS_WAITED_FOR).
pub async fn unread_since<L: Ledger>(
    ledger: &L,
    tenant: &TenantId,
) -> Result<Option<Millis>, LedgerError> {
    let readers = ledger.readers(tenant).await?;
    let mut unread = None;
    for (_, reader) in readers.outcome {
        if reader.ends.after(READERS_WAITED_FOR) <= readers.now {
            continue;
        }
        let next = match reader.cursor.as_str() {
            "" => Some(reader.since),
            cursor => {
                let page = ledger.history(tenant, Some(cursor), 1).await?;
                page.items.first().map(|(_, entry)| entry.at)
            }
        };
        unread = unread.into_iter().chain(next).min();
    }
    Ok(unread)
}

struct Work<'a, L, E, N> {
    ledger: &'a L,
    tenant: &'a TenantId,
    plan: Plan<E, N>,
    written: u64,
    pages: usize,
    done: Rewritten,
}

/// The part of a journal before an instant.
#[derive(Default)]
struct Old {
    /// Cursor of its last entry.
    last: Option<String>,
    /// How many entries it has.
    entries: u64,
    /// Calls of it that stay, with the number of the entry that each begins with.
    stay: HashMap<String, u64>,
    /// What the lives of calls in it came to that do not stay.
    listed: Listed,
    /// Calls of the journal that were corrected.
    corrected: HashSet<String>,
}

/// What the entries that are trimmed add up to.
#[derive(Default)]
struct Removed {
    sums: BTreeMap<String, Sums>,
    opening: Opening,
    /// Removed entries that were no openings.
    new: u64,
    /// How the wallet stood after all entries so far, those that stay too.
    wallet: WalletStory,
    /// The same after the last entry that was removed, where others followed that stay.
    wallet_then: Option<WalletStory>,
    /// What settled calls that were corrected fall short of.
    short: HashMap<String, Micros>,
    /// Blocks that stand, by payer and whose block it is.
    blocks: BTreeMap<(String, String), Block>,
}

type Numbered = (String, Entry);

impl<L, E, N> Work<'_, L, E, N>
where
    L: Ledger,
    E: FnMut(&mut Entry) -> bool + Send,
    N: Fn(u64) -> Vec<u8> + Send,
{
    /// `None` where there is nothing to do.
    async fn run(mut self) -> Result<Option<Rewritten>, RewriteError> {
        let mut read_until = None;
        let mut head = vec![];
        if let Some(cut) = self.plan.trim {
            let old = self.read_old(cut).await?;
            head = self.open_anew(cut, &old).await?;
            if self.done.trimmed > 0 {
                read_until = old.last;
            } else {
                head.clear();
            }
        }
        if self.done.trimmed == 0 && !self.plan.always && !self.finds_anything().await? {
            return Ok(None);
        }
        for chunk in head.chunks(PAGE) {
            self.write(chunk.to_vec()).await?;
        }
        loop {
            loop {
                let page = self.page(read_until.as_deref()).await?;
                read_until = page.last().map(|(cursor, _)| cursor.clone()).or(read_until);
                let is_last = page.len() < PAGE;
                self.write(page).await?;
                if is_last {
                    break;
                }
            }
            let finish = self.finish(read_until.clone());
            match self.ledger.finish_rewrite(self.tenant, &finish).await?.outcome {
                FinishedRewrite::Done => return Ok(Some(self.done)),
                FinishedRewrite::Behind => {}
                FinishedRewrite::Lost => return Err(self.lost()),
            }
        }
    }

    fn lost(&self) -> RewriteError {
        RewriteError::Busy(self.tenant.clone())
    }

    fn finish(&self, read_until: Option<String>) -> FinishRewrite {
        let Plan { token, trim, erase_within, note, .. } = &self.plan;
        let noted = self.done.erased > 0 || self.plan.always;
        FinishRewrite {
            token: token.clone(),
            read_until,
            written: self.written,
            trimmed: trim.unwrap_or_default(),
            erased: erase_within.map_or(Millis::ZERO, |(_, before)| before),
            note: noted.then(|| note(self.done.erased)),
        }
    }

    /// The next entries after a cursor; fewer than a page at the end.
    async fn page(&mut self, after: Option<&str>) -> Result<Vec<Numbered>, RewriteError> {
        self.pages += 1;
        if self.pages.is_multiple_of(PAGES_PER_SIGN) {
            self.add(&[]).await?;
        }
        Ok(self.ledger.history(self.tenant, after, PAGE).await?.items)
    }

    async fn add(&self, entries: &[Numbered]) -> Result<(), RewriteError> {
        match self.ledger.add_rewritten(self.tenant, &self.plan.token, entries).await? {
            true => Ok(()),
            false => Err(self.lost()),
        }
    }

    async fn write(&mut self, mut entries: Vec<Numbered>) -> Result<(), RewriteError> {
        for (_, entry) in &mut entries {
            self.done.erased += u64::from((self.plan.erase)(entry));
        }
        if !entries.is_empty() {
            self.add(&entries).await?;
            self.written += entries.len() as u64;
        }
        Ok(())
    }

    /// Whether `erase` would change any entry.
    async fn finds_anything(&mut self) -> Result<bool, RewriteError> {
        let mut after = match self.plan.erase_within {
            Some((from, _)) => self.ledger.history_since(self.tenant, from).await?,
            None => None,
        };
        loop {
            let page = self.page(after.as_deref()).await?;
            let is_last = page.len() < PAGE;
            for (cursor, mut entry) in page {
                if self.plan.erase_within.is_some_and(|(_, before)| entry.at >= before) {
                    return Ok(false);
                }
                if (self.plan.erase)(&mut entry) {
                    return Ok(true);
                }
                after = Some(cursor);
            }
            if is_last {
                return Ok(false);
            }
        }
    }

    /// Finds the part before the first entry from `cut` on, and the calls of it that must stay.
    async fn read_old(&mut self, cut: Millis) -> Result<Old, RewriteError> {
        let mut corrected = HashSet::new();
        loop {
            let (old, is_whole) = self.read_old_with(cut, std::mem::take(&mut corrected)).await?;
            if is_whole {
                return Ok(old);
            }
            corrected = old.corrected;
        }
    }

    /// The same, given calls that are known to be corrected; whether no other correction was met whose call
    /// had been forgotten here by then. Each was made while the ledger kept its call, so that there are few.
    async fn read_old_with(
        &mut self,
        cut: Millis,
        corrected: HashSet<String>,
    ) -> Result<(Old, bool), RewriteError> {
        let mut old = Old { corrected, ..Old::default() };
        let mut is_whole = true;
        let mut forgotten = false;
        let mut story = Story::default();
        let mut reading = true;
        while reading {
            let page = self.page(old.last.as_deref()).await?;
            reading = page.len() == PAGE;
            let mut ended = BTreeSet::new();
            for (cursor, entry) in page {
                if entry.at >= cut {
                    reading = false;
                    break;
                }
                if entry.is_of_call() {
                    is_whole &= old.knows_of(&story, &entry);
                    // What is unlawful in it is for the audit to say.
                    story.tell(old.entries, &entry);
                    if story.lives.get(&entry.subject).is_some_and(Life::is_final) {
                        ended.insert(entry.subject);
                    }
                }
                old.last = Some(cursor);
                old.entries += 1;
            }
            for id in self.not_kept(ended).await? {
                let is_over = story.lives.get(&id).is_some_and(Life::is_final);
                if is_over && !old.corrected.contains(&id) {
                    story.forget(&id);
                    forgotten = true;
                }
            }
        }
        // A call that the ledger does not keep now does not go on after this; one that went on before
        // this did so in the journal that is read next.
        let may_stay = story.lives.iter().map(|(id, life)| (id.clone(), life.begun));
        let mut may_stay: HashMap<String, u64> = may_stay.collect();
        let mut kept: HashSet<String> = may_stay.keys().cloned().collect();
        for id in self.not_kept(kept.clone()).await? {
            kept.remove(&id);
        }
        let mut after = old.last.clone();
        let mut number = old.entries;
        let mut reading = forgotten || !may_stay.is_empty();
        while reading {
            let page = self.page(after.as_deref()).await?;
            reading = page.len() == PAGE;
            for (cursor, entry) in page {
                is_whole &= old.knows_of(&story, &entry);
                if entry.is_of_call()
                    && let Some(begun) = may_stay.remove(&entry.subject)
                {
                    story.tell(number, &entry);
                    if story.lives.get(&entry.subject).is_some_and(|life| life.begun == begun) {
                        old.stay.insert(entry.subject, begun);
                    }
                }
                number += 1;
                after = Some(cursor);
            }
        }
        old.stay.extend(may_stay.into_iter().filter(|(id, _)| kept.contains(id)));
        old.listed = story.past;
        for (id, life) in &story.lives {
            if life.begun < old.entries && !old.stay.contains_key(id) {
                old.listed.add(life);
            }
        }
        Ok((old, is_whole))
    }

    /// Those of the calls that the ledger has forgotten.
    async fn not_kept(
        &mut self,
        calls: impl IntoIterator<Item = String>,
    ) -> Result<Vec<String>, RewriteError> {
        let ids: Vec<String> = calls.into_iter().collect();
        let mut gone = vec![];
        for (index, chunk) in ids.chunks(PAGE).enumerate() {
            if index % PAGES_PER_SIGN == PAGES_PER_SIGN - 1 {
                self.add(&[]).await?;
            }
            let read = |id: &String| {
                let bad = || LedgerError::Corrupt(format!("{id:?} is no call"));
                CallId::new(id).map_err(|_| bad())
            };
            let calls = chunk.iter().map(read).collect::<Result<Vec<_>, LedgerError>>()?;
            let kept = self.ledger.are_kept(self.tenant, &calls).await?;
            gone.extend(chunk.iter().zip(kept).filter(|(_, kept)| !kept).map(|(id, _)| id.clone()));
        }
        Ok(gone)
    }

    /// The old part as it is to be: what stays, and openings for the rest.
    async fn open_anew(&mut self, cut: Millis, old: &Old) -> Result<Vec<Numbered>, RewriteError> {
        let mut removed = Removed::default();
        let mut stays: Vec<(u64, Numbered)> = vec![];
        let mut places: VecDeque<(u64, String, Millis)> = VecDeque::new();
        let mut after = None;
        let mut number = 0;
        while number < old.entries {
            let page = self.page(after.as_deref()).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (cursor, entry) in page {
                if number == old.entries {
                    break;
                }
                let begun = old.stay.get(&entry.subject).filter(|_| entry.is_of_call());
                let stay = begun.is_some_and(|begun| *begun <= number);
                removed.pass(&entry, stay, &old.corrected);
                if stay {
                    stays.push((number, (cursor, entry)));
                } else {
                    removed.add(&entry)?;
                    places.push_back((number, cursor, entry.at));
                    if places.len() > MOST_OPENINGS {
                        places.pop_front();
                    }
                }
                number += 1;
            }
        }
        if removed.new == 0 {
            return Ok(vec![]);
        }
        let openings = removed.into_openings(cut, &old.listed, places.len());
        let places = places.split_off(places.len() - openings.len());
        self.done.trimmed = number - stays.len() as u64;
        self.done.openings = openings.len() as u64;
        for ((number, cursor, at), opening) in places.into_iter().zip(openings) {
            stays.push((number, (cursor, Entry { at, ..opening })));
        }
        stays.sort_by_key(|(number, _)| *number);
        Ok(stays.into_iter().map(|(_, entry)| entry).collect())
    }
}

impl Old {
    /// Notes whose correction an entry is, if it is a call's; `false` where that is news and comes too late,
    /// because the call was forgotten here.
    fn knows_of(&mut self, story: &Story, entry: &Entry) -> bool {
        if entry.kind != EntryKind::Adjusted || !entry.is_of_call() {
            return true;
        }
        !self.corrected.insert(entry.subject.clone()) || story.lives.contains_key(&entry.subject)
    }
}

impl Removed {
    /// Shows the next entry, whether it stays or not: what a wallet owes depends on the order of all.
    fn pass(&mut self, entry: &Entry, stays: bool, corrected: &HashSet<String>) {
        use EntryKind::{Adjusted, Settled, SettledLate};
        if !stays {
            self.wallet_then = None;
        } else if self.wallet_then.is_none() {
            self.wallet_then = Some(self.wallet.clone());
        }
        // What is unlawful in it is for the audit to say.
        self.wallet.tell(entry, self.short.get(&entry.subject).copied());
        if matches!(entry.kind, Settled | SettledLate | Adjusted)
            && corrected.contains(&entry.subject)
        {
            self.short.insert(entry.subject.clone(), entry.shortfall_money);
        }
        if entry.kind == EntryKind::Opening
            && let Some(Opening { wallet: Some(wallet), .. }) = Opening::decode(&entry.context)
        {
            self.wallet = wallet;
        }
    }

    fn add(&mut self, entry: &Entry) -> Result<(), LedgerError> {
        for posting in &entry.postings {
            self.sums.entry(posting.bucket.clone()).or_default().add(posting);
        }
        self.opening.decisions += i64::from(entry.kind.is_decision());
        self.opening.committed += committed(entry);
        if entry.kind == EntryKind::Adjusted {
            self.opening.corrections.add(entry);
        }
        tell_blocks(&mut self.blocks, entry);
        if entry.kind != EntryKind::Opening {
            self.opening.entries += 1;
            self.new += 1;
            return Ok(());
        }
        let unreadable = || LedgerError::Corrupt("an opening entry cannot be read".to_owned());
        let before = Opening::decode(&entry.context).ok_or_else(unreadable)?;
        let sum = &mut self.opening;
        sum.entries += before.entries;
        sum.decisions += before.decisions;
        sum.shortfalls += before.shortfalls;
        sum.shortfall_duration += before.shortfall_duration;
        sum.shortfall_money += before.shortfall_money;
        sum.parked_calls += before.parked_calls;
        sum.parked += before.parked;
        sum.corrections.join(&before.corrections);
        Ok(())
    }

    /// One opening or more, at most `most`, without their instants.
    fn into_openings(self, until: Millis, listed: &Listed, most: usize) -> Vec<Entry> {
        // A lot stays even where it moved nothing: that it was bought is told by nothing else.
        let is_bought = |bucket: &str| bucket.starts_with("l:") && !is_overage(bucket);
        let moved = |(bucket, sums): &(String, Sums)| *sums != Sums::default() || is_bought(bucket);
        let postings = self.sums.into_iter().filter(moved).map(|(bucket, sums)| Posting {
            bucket,
            funded: sums.funded,
            held: sums.held,
            spent: sums.spent,
            expired: sums.expired,
            adjusted: sums.adjusted,
        });
        let postings: Vec<Posting> = postings.collect();
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let blocks = self.blocks.into_iter();
        let blocks = blocks.map(|((payer, by), block)| StandingBlock { payer, by, block });
        let blocks: Vec<StandingBlock> = blocks.collect();
        let wallet = Some(self.wallet_then.unwrap_or(self.wallet));
        let mut counts = Opening { until, wallet, ..self.opening };
        counts.shortfalls += count(listed.shortfalls);
        counts.shortfall_duration += listed.shortfall_duration;
        counts.shortfall_money += listed.shortfall_money;
        counts.parked_calls += count(listed.parked_calls);
        counts.parked += listed.parked;
        let size = |parts: usize| PARTS.max(parts.div_ceil(most.max(1)));
        let mut postings = postings.chunks(size(postings.len()));
        let mut blocks = blocks.chunks(size(blocks.len()));
        let wanted = postings.len().max(blocks.len()).max(1);
        let mut openings = vec![];
        for number in 1..=wanted {
            let blocks = blocks.next().unwrap_or_default().to_vec();
            let counts = if number == wanted {
                std::mem::take(&mut counts)
            } else {
                Opening { until, ..Opening::default() }
            };
            let said = Opening { blocks, ..counts };
            openings.push(opening(&said, postings.next().unwrap_or_default()));
        }
        openings
    }
}

fn opening(counts: &Opening, postings: &[Posting]) -> Entry {
    Entry {
        kind: EntryKind::Opening,
        at: counts.until,
        subject: String::new(),
        payer: String::new(),
        decision: None,
        used: Seconds::ZERO,
        granted: Seconds::ZERO,
        shortfall_duration: Seconds::ZERO,
        shortfall_money: Micros::ZERO,
        postings: postings.to_vec(),
        context: counts.encode(),
        report: vec![],
    }
}
