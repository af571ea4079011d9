//! What the control thread wants to know of the judge: what became of rules' bodies, and what those that only look on would
//! have done. Control waits a little; the judge answers between two turns and waits for nobody.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use dataplane::judge::BodyBooks;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Question {
    asked: AtomicBool,
    answer: ArrayQueue<BodyBooks>,
}

impl Default for Question {
    fn default() -> Self {
        Question { asked: AtomicBool::new(false), answer: ArrayQueue::new(1) }
    }
}

impl Question {
    /// Control's end. `None` if the judge is too busy, or the run is `over`.
    pub fn ask(&self, over: &AtomicBool) -> Option<BodyBooks> {
        // The answer to a question that nobody waited for any more.
        let _ = self.answer.pop();
        self.asked.store(true, Ordering::Release);
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(books) = self.answer.pop() {
                return Some(books);
            }
            if Instant::now() >= until || over.load(Ordering::Relaxed) {
                return None;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The judge's end.
    pub fn answer(&self, books: impl FnOnce() -> BodyBooks) {
        if self.asked.load(Ordering::Acquire) {
            self.asked.store(false, Ordering::Relaxed);
            self.answer.force_push(books());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_to_a_question_and_none_to_none() {
        let question = Question::default();
        question.answer(|| unreachable!("nobody asked"));
        thread::scope(|scope| {
            let asking = scope.spawn(|| question.ask(&AtomicBool::new(false)));
            while !asking.is_finished() {
                question.answer(BodyBooks::default);
            }
            assert_eq!(asking.join().unwrap().map(|books| books.counts.len()), Some(0));
        });
        assert!(question.ask(&AtomicBool::new(true)).is_none(), "the run is over");
    }
}
