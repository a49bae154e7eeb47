//! Which parts of the arena are taken: a binary buddy allocator over offsets. No memory is
//! touched here, so it is safe code and is tested without pages.
//!
//! Promises: blocks handed out never overlap; giving all of them back restores the empty state
//! (neighbours merge, so small secrets do not wear the arena out). Both operations take a number
//! of steps that depends on the number of size classes alone.

/// The smallest block, in bytes: a key with its cache line to itself.
pub(super) const MIN_BLOCK: usize = 64;
/// Size classes: 64 B, 128 B, … 64 KiB.
pub(super) const ORDERS: usize = 11;
/// The largest block, in bytes.
pub(super) const MAX_BLOCK: usize = MIN_BLOCK << (ORDERS - 1);

const NIL: u32 = u32::MAX;

/// A taken block. Not `Clone`: whoever holds it holds the block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Start, counted in smallest blocks.
    index: u32,
    order: u8,
}

impl Block {
    /// Byte offset from the start of the arena.
    pub(super) fn offset(&self) -> usize {
        self.index as usize * MIN_BLOCK
    }

    /// Size in bytes, a power of two.
    pub(super) fn size(&self) -> usize {
        MIN_BLOCK << self.order
    }
}

/// Links of a free block in the list of its order, kept at the block's first index.
#[derive(Clone, Copy)]
struct Link {
    prev: u32,
    next: u32,
    /// Order of the free block that starts here; `None` where no free block starts.
    order: Option<u8>,
}

/// The free lists of an arena.
pub(super) struct Buddy {
    heads: [u32; ORDERS],
    links: Vec<Link>,
}

impl Buddy {
    /// All free. `blocks` is the number of largest blocks in the arena.
    pub(super) fn new(blocks: usize) -> Buddy {
        let per_block = 1 << (ORDERS - 1);
        let empty = Link {
            prev: NIL,
            next: NIL,
            order: None,
        };
        let mut buddy = Buddy {
            heads: [NIL; ORDERS],
            links: vec![empty; blocks * per_block],
        };
        for block in (0..blocks).rev() {
            buddy.link((block * per_block) as u32, (ORDERS - 1) as u8);
        }
        buddy
    }

    /// Takes the smallest free block of at least `bytes`, splitting a larger one if need be.
    pub(super) fn take(&mut self, bytes: usize) -> Option<Block> {
        let units = bytes
            .max(1)
            .div_ceil(MIN_BLOCK)
            .checked_next_power_of_two()?;
        let wanted = units.trailing_zeros() as usize;
        let mut order = (wanted..ORDERS).find(|&order| self.heads[order] != NIL)?;
        let index = self.heads[order];
        self.unlink(index);
        while order > wanted {
            order -= 1;
            self.link(index + (1 << order), order as u8);
        }
        Some(Block {
            index,
            order: wanted as u8,
        })
    }

    /// Gives a block back and merges it with its free neighbours.
    pub(super) fn give_back(&mut self, block: Block) {
        let Block {
            mut index,
            mut order,
        } = block;
        while (order as usize) < ORDERS - 1 {
            let buddy = index ^ (1 << order);
            if self.links[buddy as usize].order != Some(order) {
                break;
            }
            self.unlink(buddy);
            index = index.min(buddy);
            order += 1;
        }
        self.link(index, order);
    }

    fn link(&mut self, index: u32, order: u8) {
        let head = std::mem::replace(&mut self.heads[order as usize], index);
        if head != NIL {
            self.links[head as usize].prev = index;
        }
        self.links[index as usize] = Link {
            prev: NIL,
            next: head,
            order: Some(order),
        };
    }

    fn unlink(&mut self, index: u32) {
        let Link { prev, next, order } = self.links[index as usize];
        if next != NIL {
            self.links[next as usize].prev = prev;
        }
        match (prev, order) {
            (NIL, Some(order)) => self.heads[order as usize] = next,
            (NIL, None) => {}
            (prev, _) => self.links[prev as usize].next = next,
        }
        self.links[index as usize].order = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn blocks_never_overlap_and_all_merge_again(
            steps in prop::collection::vec((any::<bool>(), 0usize..=MAX_BLOCK, any::<usize>()), 1..200)
        ) {
            let arena = 4 * MAX_BLOCK;
            let mut buddy = Buddy::new(4);
            let mut taken: Vec<Block> = Vec::new();
            for (take, bytes, pick) in steps {
                if take {
                    if let Some(block) = buddy.take(bytes) {
                        prop_assert!(block.size() >= bytes && block.offset() + block.size() <= arena);
                        for other in &taken {
                            prop_assert!(block.offset() + block.size() <= other.offset()
                                || other.offset() + other.size() <= block.offset());
                        }
                        taken.push(block);
                    }
                } else if !taken.is_empty() {
                    let index = pick % taken.len();
                    buddy.give_back(taken.swap_remove(index));
                }
            }
            for block in taken {
                buddy.give_back(block);
            }
            let whole: Vec<_> = (0..4).map(|_| buddy.take(MAX_BLOCK)).collect();
            prop_assert!(whole.iter().all(Option::is_some));
            prop_assert!(buddy.take(1).is_none());
        }
    }

    #[test]
    fn more_than_the_largest_block_is_refused() {
        assert!(Buddy::new(2).take(MAX_BLOCK + 1).is_none());
        assert!(Buddy::new(2).take(usize::MAX).is_none());
    }
}
