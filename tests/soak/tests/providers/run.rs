//! The run of one provider: rounds of faults, each with a quiet quarter at its end.

use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::dead_letter::{DeadLetterFilter, DeadReason};
use eventbroker::query::Filter;
use eventbroker::{Broker, Status};
use eventbroker_conformance::processes::{Fault, Folder, Member, PATIENCE, Place, Random};
use eventbroker_conformance::proxy::Proxy;

use super::Subject;
use super::books::{Books, Struck};
use super::member::{self, Files, LEASE};
use super::report::Report;
use super::samples::Samples;

/// The duration of a run, and the frequency and length of its faults.
pub(crate) struct Plan {
    rounds: u64,
    /// The duration of a round. Its last quarter has no faults.
    round: Duration,
    /// The pause between two faults in milliseconds: the minimum, and the random part.
    pause: (u64, u64),
    /// The random part of a fault's duration, in milliseconds.
    longest: u64,
    /// Whether the run is long enough to enforce the bound on the growth of memory.
    pub(crate) is_long: bool,
}

impl Plan {
    /// A plan of this many minutes; 0 for the short form.
    pub(crate) fn of_minutes(minutes: u64) -> Self {
        let round = Duration::from_secs(120);
        if minutes == 0 {
            let round = round / 6;
            return Self { rounds: 1, round, pause: (500, 1_000), longest: 2_000, is_long: false };
        }
        Self { rounds: minutes.div_ceil(2), round, pause: (2_000, 8_000), longest: 7_000, is_long: minutes >= 30 }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rounds of {:?}, the last quarter of each without faults", self.rounds, self.round)
    }
}

/// The run of one provider.
struct Run<'a> {
    subject: &'a Subject,
    address: String,
    proxy: Option<Proxy>,
    files: Files,
    /// The first member is never killed, and is the one whose resources are sampled.
    members: Vec<Member>,
    books: Books,
    samples: Samples,
    slowest: Duration,
    late: usize,
    random: Random,
    place: Box<dyn Place>,
    /// Declared last, so that it is dropped last.
    _folder: Folder,
}

/// The kinds of faults.
#[derive(Clone, Copy)]
enum Trouble {
    /// A fault of the back end.
    BackEnd(Fault),
    /// An answer is lost, and its connection is cut.
    Answer,
    /// A member is killed, and replaced.
    Death,
    /// A member is frozen, for less than a lease.
    Pause,
}

pub(crate) fn run(subject: &Subject, plan: &Plan, random: Random) -> Report {
    let mut run = Run::begin(subject, random);
    for round in 1..=plan.rounds {
        run.rough(plan);
        run.quiet(plan);
        if plan.is_long {
            println!("{}: round {round} of {}: {}", subject.name, plan.rounds, run.books.account());
        }
    }
    run.end()
}

impl<'a> Run<'a> {
    fn begin(subject: &'a Subject, random: Random) -> Self {
        let place = subject.site.fresh();
        let proxy = place.port().map(Proxy::to);
        let address = proxy.as_ref().map_or_else(|| place.address().to_owned(), |it| place.address_by(it.port()));
        let folder = Folder::new();
        let files = Files::beside(&folder.file("handled"));
        let (books, samples) = (Books::new(&files, subject.under_way), Samples::new());
        let (slowest, late) = (Duration::ZERO, 0);
        let mut run = Self {
            subject,
            address,
            proxy,
            files,
            members: Vec::new(),
            books,
            samples,
            slowest,
            late,
            random,
            place,
            _folder: folder,
        };
        for _ in 0..subject.instances {
            let member = run.member();
            run.members.push(member);
        }
        run
    }

    /// Starts a member, and waits until it has started.
    fn member(&mut self) -> Member {
        let member = Member::start(self.subject.name, &self.address, &self.files.handled);
        self.wait_for("a member starts", |books| books.started.contains(&member.pid()));
        self.books.started.remove(&member.pid());
        member
    }

    /// Reads the logs until a condition holds. A timeout is recorded as a complaint.
    fn wait_for(&mut self, what: &str, holds: impl Fn(&Books) -> bool) -> Duration {
        let began = Instant::now();
        loop {
            self.books.read();
            if holds(&self.books) {
                return began.elapsed();
            }
            if began.elapsed() > PATIENCE {
                let (faults, open) = (self.books.faults.len(), self.books.open.len());
                self.books.complaints.push(format!("{what}: not within {PATIENCE:?}; {faults} faults, {open} open"));
                return began.elapsed();
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits, and samples the resources of the first member.
    fn rest(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            thread::sleep(left.min(Duration::from_secs(5)));
            self.samples.take(&self.members[0]);
            if left.is_zero() {
                return;
            }
        }
    }

    /// Three quarters of a round, with one fault after the other.
    fn rough(&mut self, plan: &Plan) {
        let until = Instant::now() + plan.round * 3 / 4;
        loop {
            let pause = Duration::from_millis(plan.pause.0 + self.random.below(plan.pause.1));
            if Instant::now() + pause > until {
                return self.rest(until.saturating_duration_since(Instant::now()));
            }
            self.rest(pause);
            let back_end = self.place.faults().iter().map(|fault| Trouble::BackEnd(*fault));
            let mut troubles: Vec<Trouble> = back_end.chain([Trouble::Pause]).collect();
            troubles.extend(self.proxy.as_ref().map(|_| Trouble::Answer));
            troubles.extend((self.members.len() > 1).then_some(Trouble::Death));
            let trouble = troubles[self.random.below(troubles.len() as u64) as usize];
            self.strike(trouble, plan.longest);
        }
    }

    fn strike(&mut self, trouble: Trouble, longest: u64) {
        let lasts = 100 + self.random.below(longest);
        let began = member::now();
        let (what, victim) = match trouble {
            Trouble::BackEnd(fault) => {
                self.place.suffer(fault, Duration::from_millis(lasts));
                (["back end killed", "back end frozen", "connections closed"][fault as usize], None)
            }
            Trouble::Answer => {
                let proxy = self.proxy.as_ref().expect("answers come through it");
                proxy.cut_answers(1);
                let deadline = Instant::now() + PATIENCE;
                while proxy.answers_to_cut() > 0 && Instant::now() < deadline {
                    thread::sleep(Duration::from_millis(1));
                }
                ("answer lost", None)
            }
            Trouble::Death => {
                let victim = 1 + self.random.below(self.members.len() as u64 - 1) as usize;
                let pid = self.members[victim].pid();
                self.members[victim].kill();
                ("member killed", Some(pid))
            }
            Trouble::Pause => {
                let victim = self.random.below(self.members.len() as u64) as usize;
                self.place.freeze(&self.members[victim]);
                thread::sleep(Duration::from_millis(lasts).min(LEASE / 2));
                self.members[victim].freeze(false);
                ("member frozen", Some(self.members[victim].pid()))
            }
        };
        let ended = member::now();
        self.books.faults.push(Struck { what, victim, began, ended });
        self.books.read();
        let (accepted, calls) = self.books.counts();
        let goes_on =
            self.wait_for("the load resumes", |books| books.counts().0 > accepted + 2 && books.counts().1 > calls + 2);
        self.slowest = self.slowest.max(goes_on);
        if matches!(trouble, Trouble::Death) {
            let dead = self.members.iter_mut().position(Member::has_ended).expect("it was killed");
            self.members[dead] = self.member();
        }
    }

    /// The quiet quarter of a round: events accepted before must be handled by its end.
    fn quiet(&mut self, plan: &Plan) {
        self.books.read();
        let before = self.books.open.clone();
        self.rest(plan.round / 4);
        self.books.read();
        // In the short form a quarter is shorter than the lease of a killed member.
        if !plan.is_long {
            self.wait_for("earlier events are handled", |books| before.is_disjoint(&books.open));
        }
        self.late += before.intersection(&self.books.open).count();
        self.samples.take_quiet(&self.members[0]);
        for place in 0..self.members.len() {
            if self.members[place].has_ended() {
                self.books.complaints.push(format!("member {place} has ended by itself"));
                self.members[place] = self.member();
            }
        }
    }

    fn end(mut self) -> Report {
        fs::write(&self.files.enough, "").expect("a file");
        let pids: Vec<u32> = self.members.iter().map(Member::pid).collect();
        self.wait_for("all members have stopped publishing", |books| pids.iter().all(|pid| books.silent.contains(pid)));
        let blamed = self.wait_until_settled();
        fs::write(&self.files.end, "").expect("a file");
        for member in &mut self.members {
            if !member.join() {
                self.books.complaints.push("a member ended with an error".to_owned());
            }
        }
        self.books.read();
        // Damaged data is reported as a complaint, so that the other figures are still printed.
        if let Err(problem) = catch_unwind(AssertUnwindSafe(|| self.place.check())) {
            let said = problem.downcast_ref::<String>().map_or("it panicked", String::as_str).replace('\n', " ");
            self.books.complaints.push(format!("the back end: {said}"));
        }
        let promises_order = self.subject.site.keeps_order_across_members();
        let (slowest, late) = (self.slowest, self.late);
        Report {
            name: self.subject.name,
            promises_order,
            books: self.books,
            samples: self.samples,
            slowest,
            late,
            blamed,
        }
    }

    /// Waits until all accepted events are handled and settled. Returns the number of dead letters of the crash guard:
    /// events that ran alone each time their process was killed. The memory provider's store is in the member, so only
    /// its calls are checked.
    fn wait_until_settled(&mut self) -> usize {
        if self.subject.instances == 1 {
            self.wait_for("all are handled", |books| books.open.is_empty());
            return 0;
        }
        let provider = self.subject.site.open(self.place.address(), LEASE);
        let broker = Broker::builder().provider(provider).start().expect("it starts");
        let crashed = DeadLetterFilter { reason: Some(DeadReason::CrashLoop), ..DeadLetterFilter::default() };
        let letters = broker.dead_letters(&crashed).expect("it answers");
        for letter in &letters {
            self.books.open.remove(&letter.event.id().to_string());
        }
        self.wait_for("all are handled", |books| books.open.is_empty());
        let unsettled = |status| {
            let filter = Filter { status: Some(status), ..Filter::default() };
            broker.list(&filter).is_ok_and(|page| !page.events.is_empty())
        };
        self.wait_for("all are settled", |_| !unsettled(Status::Pending) && !unsettled(Status::Processing));
        broker.stop(PATIENCE);
        letters.len()
    }
}
