//! Threads that write frames while the thread that appends copies the next ones: a few for the
//! whole process, whatever number of logs it has. See decision 0011 for why threads and not
//! `io_uring`.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

/// Enough requests in flight for a disk to work on several at once; more gain nothing measurable.
const THREADS: usize = 4;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    wake: Condvar,
}

/// Hands a job to a thread; gives it back where there is none (the system refused to make one).
pub(crate) fn submit(job: impl FnOnce() + Send + 'static) -> bool {
    static QUEUE: OnceLock<Option<Arc<Queue>>> = OnceLock::new();
    let Some(queue) = QUEUE.get_or_init(start) else { return false };
    queue.jobs.lock().unwrap_or_else(PoisonError::into_inner).push_back(Box::new(job));
    queue.wake.notify_one();
    true
}

fn start() -> Option<Arc<Queue>> {
    let queue = Arc::new(Queue::default());
    let started = (0..THREADS)
        .filter(|number| {
            let queue = Arc::clone(&queue);
            let name = format!("log-writer-{number}");
            std::thread::Builder::new().name(name).spawn(move || work(&queue)).is_ok()
        })
        .count();
    (started > 0).then_some(queue)
}

fn work(queue: &Queue) {
    loop {
        let mut jobs = queue.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let job = loop {
            if let Some(job) = jobs.pop_front() {
                break job;
            }
            jobs = queue.wake.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        };
        drop(jobs);
        job();
    }
}
