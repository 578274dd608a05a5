//! Calls and entries in few bytes: a book has a great many of them, and seldom looks at one.

use std::marker::PhantomData;
use std::mem::take;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ledger::state::{Call, Entry};

/// What a book packs.
pub(super) trait Packable: Serialize + DeserializeOwned {
    /// What Rust said about it: most of its bytes, and the same in a call and in all of its entries.
    fn context(&mut self) -> &mut Vec<u8>;
}

impl Packable for Call {
    fn context(&mut self) -> &mut Vec<u8> {
        &mut self.context
    }
}

impl Packable for Entry {
    fn context(&mut self) -> &mut Vec<u8> {
        &mut self.context
    }
}

/// A call or an entry in two pieces of memory, of which it may share one. Two are equal where their values are.
/// The form is nobody's but this process's: rows have another one.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Packed<T> {
    context: Arc<[u8]>,
    rest: Box<[u8]>,
    of: PhantomData<fn() -> T>,
}

impl<T: Packable> Packed<T> {
    /// Packs the value, which is left as it is. It shares `known` where its context is the same.
    pub(super) fn of(value: &mut T, known: Option<&Arc<[u8]>>) -> Packed<T> {
        let context = take(value.context());
        let rest = postcard::to_extend(value, Vec::with_capacity(512));
        // Neither this nor the other can fail: there is room, and nothing but this writes the bytes.
        let rest = rest.expect("a value that is stored can be packed");
        // Copied: an allocator that is asked to shrink leaves a half of what it gave unused.
        let rest = rest.as_slice().into();
        let same = known.filter(|known| ***known == *context).cloned();
        let shared = same.unwrap_or_else(|| context.as_slice().into());
        *value.context() = context;
        Packed { context: shared, rest, of: PhantomData }
    }

    /// The value.
    pub(super) fn open(&self) -> T {
        let value = postcard::from_bytes(&self.rest);
        let mut value: T = value.expect("what was packed can be opened");
        *value.context() = self.context.to_vec();
        value
    }

    pub(super) fn context(&self) -> &Arc<[u8]> {
        &self.context
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charging::units::Millis;
    use crate::ledger::state::CallState;

    #[test]
    fn what_is_packed_is_opened_as_it_was_and_shares_a_context_that_is_the_same() {
        let mut call = Call { context: vec![7; 200], ..Call::new(CallState::Ringing, Millis(1)) };
        let before = call.clone();
        let first = Packed::of(&mut call, None);
        assert_eq!((&call, first.open()), (&before, before.clone()));
        let second = Packed::of(&mut call, Some(first.context()));
        assert!(Arc::ptr_eq(first.context(), second.context()) && first == second);
        call.context = vec![8; 200];
        let third = Packed::of(&mut call, Some(first.context()));
        assert_eq!(third.open(), call);
        assert!(first != third && first.open() == before);
    }
}
