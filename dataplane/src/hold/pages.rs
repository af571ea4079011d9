//! A pool of fixed pages, and byte queues made of them. Worker's thread; all memory taken at start.
//!
//! A queue is a list of pages: packets are appended at its end and read from its front, and may span pages.

use crate::flow::record::NONE;

/// Bytes in a page.
pub const PAGE: usize = 4096;

/// The pool.
#[derive(Debug)]
pub struct Pages {
    bytes: Box<[u8]>,
    next: Box<[u32]>,
    free: u32,
    free_count: u32,
}

/// A byte queue; its pages belong to it until read.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    first: u32,
    last: u32,
    /// Where reading goes on in the first page, and writing in the last.
    read: u32,
    write: u32,
    /// Bytes in it.
    pub len: u64,
}

impl Queue {
    pub const EMPTY: Queue = Queue { first: NONE, last: NONE, read: 0, write: 0, len: 0 };
}

impl Pages {
    pub fn new(bytes: usize) -> Pages {
        let count = (bytes / PAGE).max(1);
        let next = (1..count as u32).chain([NONE]).collect();
        Pages { bytes: vec![0; count * PAGE].into_boxed_slice(), next, free: 0, free_count: count as u32 }
    }

    pub fn free_bytes(&self) -> usize {
        self.free_count as usize * PAGE
    }

    /// True if `parts` of this total length fit now.
    pub fn fits(&self, queue: &Queue, len: usize) -> bool {
        let in_last = if queue.last == NONE { 0 } else { PAGE - queue.write as usize };
        len <= in_last + self.free_bytes()
    }

    /// Appends; the caller asked [`Pages::fits`] for all it will append.
    pub fn append(&mut self, queue: &mut Queue, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if queue.last == NONE || queue.write as usize == PAGE {
                self.add_page(queue);
            }
            let at = queue.last as usize * PAGE + queue.write as usize;
            let n = bytes.len().min(PAGE - queue.write as usize);
            self.bytes[at..at + n].copy_from_slice(&bytes[..n]);
            queue.write += n as u32;
            queue.len += n as u64;
            bytes = &bytes[n..];
        }
    }

    /// Reads exactly `out.len()` bytes from the front; the queue holds that many.
    pub fn read(&mut self, queue: &mut Queue, mut out: &mut [u8]) {
        while !out.is_empty() {
            let at = queue.first as usize * PAGE + queue.read as usize;
            let n = out.len().min(PAGE - queue.read as usize);
            out[..n].copy_from_slice(&self.bytes[at..at + n]);
            queue.read += n as u32;
            queue.len -= n as u64;
            if queue.read as usize == PAGE {
                self.drop_first(queue);
            }
            out = &mut out[n..];
        }
        if queue.len == 0 {
            self.clear(queue);
        }
    }

    /// Empties a queue.
    pub fn clear(&mut self, queue: &mut Queue) {
        while queue.first != NONE {
            self.drop_first(queue);
        }
        *queue = Queue::EMPTY;
    }

    fn add_page(&mut self, queue: &mut Queue) {
        let page = self.free;
        assert!(page != NONE, "fits() was asked first");
        self.free = self.next[page as usize];
        self.free_count -= 1;
        self.next[page as usize] = NONE;
        if queue.last == NONE {
            queue.first = page;
        } else {
            self.next[queue.last as usize] = page;
        }
        (queue.last, queue.write) = (page, 0);
    }

    fn drop_first(&mut self, queue: &mut Queue) {
        let page = queue.first;
        queue.first = self.next[page as usize];
        queue.read = 0;
        if queue.first == NONE {
            queue.last = NONE;
        }
        self.next[page as usize] = self.free;
        self.free = page;
        self.free_count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_share_pages_and_give_them_back() {
        let mut pages = Pages::new(8 * PAGE);
        let (mut a, mut b) = (Queue::EMPTY, Queue::EMPTY);
        let data: Vec<u8> = (0..10_000_u32).map(|i| i as u8).collect();
        for round in 0..50 {
            assert!(pages.fits(&a, data.len()));
            pages.append(&mut a, &data);
            pages.append(&mut b, &data[..round * 7]);
            let mut out = vec![0; data.len()];
            pages.read(&mut a, &mut out);
            assert_eq!(out, data);
            let mut out = vec![0; round * 7];
            pages.read(&mut b, &mut out);
            assert_eq!(out, &data[..round * 7]);
            assert_eq!(pages.free_bytes(), 8 * PAGE);
        }
        assert!(!pages.fits(&a, 8 * PAGE + 1));
        pages.append(&mut a, &data);
        pages.clear(&mut a);
        assert_eq!(pages.free_bytes(), 8 * PAGE);
    }
}
