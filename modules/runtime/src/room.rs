//! The memory that one call may use for what it makes of a service's answers: pure, no I/O.
//!
//! Owns: [`Room`], a number of bytes that only shrinks.
//! Promises: a list that grows by [`Room::push`] has taken the bytes of its whole capacity before
//! they are allocated, so that all lists of a call together stay within the module's limit.
//! Does not: count the answers themselves (egress does) or the result (its own limit does), nor the
//! copy that a list makes while it grows.

use thiserror::Error;

/// A call has used up its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("more values than the memory of one call holds")]
pub struct NoRoom;

/// See the module's text.
#[derive(Debug)]
pub struct Room {
    left: usize,
}

impl Room {
    /// Room for so many bytes.
    pub fn new(bytes: u64) -> Room {
        Room {
            left: usize::try_from(bytes).unwrap_or(usize::MAX),
        }
    }

    /// For input that is bounded where it comes in.
    pub fn unbounded() -> Room {
        Room { left: usize::MAX }
    }

    /// An empty list with room for about so many items.
    pub fn list<T>(&mut self, items: usize) -> Vec<T> {
        let mut list = Vec::new();
        self.grow(&mut list, items);
        list
    }

    /// Appends to a list that was made by this or by [`Room::list`].
    ///
    /// # Errors
    /// [`NoRoom`]; the list is as it was.
    pub fn push<T>(&mut self, list: &mut Vec<T>, item: T) -> Result<(), NoRoom> {
        if list.len() == list.capacity() {
            self.grow(list, list.len().max(1));
        }
        if list.len() == list.capacity() {
            return Err(NoRoom);
        }
        list.push(item);
        Ok(())
    }

    /// Whether so many bytes may be used and given back.
    ///
    /// # Errors
    /// [`NoRoom`] if not.
    pub fn lends(&self, bytes: usize) -> Result<(), NoRoom> {
        if bytes <= self.left {
            Ok(())
        } else {
            Err(NoRoom)
        }
    }

    /// Makes place for `more` items, or for as many as there is room.
    fn grow<T>(&mut self, list: &mut Vec<T>, more: usize) {
        let size = size_of::<T>().max(1);
        let more = more.min(self.left / size);
        self.left -= more * size;
        list.reserve_exact(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_of_a_call_stay_within_its_room() {
        for bytes in 0..200 {
            let mut room = Room::new(bytes);
            let (mut one, mut other) = (room.list::<u64>(3), room.list::<[u8; 3]>(0));
            while room.push(&mut one, 0).is_ok() | room.push(&mut other, [0; 3]).is_ok() {
                assert!(one.capacity() * 8 + other.capacity() * 3 <= bytes as usize);
            }
            assert!(
                one.len() * 8 + other.len() * 3 + 8 > bytes as usize / 2,
                "{bytes}"
            );
            assert_eq!(room.lends(room.left), Ok(()));
            assert_eq!(room.lends(room.left + 1), Err(NoRoom));
        }
    }
}
