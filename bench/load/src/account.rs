//! A user of the API under load: what they ask, in the mix of the plan, and whether they are answered rightly.

use memchr::memmem;

use crate::http::{self, Answer};

/// The tasks that each account has before a run, and the items of a list.
pub const TASKS: usize = 20;

/// What titles are made of; each account's tasks have all of them, so that every search finds something.
const WORDS: [&str; TASKS] = [
    "invoice", "report", "meeting", "release", "backup", "contract", "budget", "survey", "customer", "harbour",
    "garden", "ticket", "schedule", "review", "payment", "window", "printer", "travel", "training", "archive",
];

const STATUSES: [&str; 3] = ["pending", "in_progress", "completed"];

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The newest tasks, which must show this one.
    List(Option<Newest>),
    /// A task.
    Get(i64),
    /// Tasks with a word.
    Search(&'static str),
    /// Counts.
    Summary,
    /// A new task; so many were created before it was asked for.
    Create {
        /// Creations that had been answered.
        answered: u32,
    },
    /// A new status of a task.
    Patch(i64, &'static str),
    /// No such task any more: clears up after a run.
    Delete(i64),
}

/// A task whose creation was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    id: i64,
    /// Creations that had been answered when it was asked for: all others may be newer.
    answered: u32,
}

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// Another status than success.
    Status(u16),
    /// A success that does not tell what it should.
    Body(&'static str),
}

/// A user with their session and tasks.
#[derive(Debug, Default)]
pub struct Account {
    /// The session's token.
    pub token: String,
    /// Ids of the tasks that stay.
    pub tasks: Vec<i64>,
    /// Ids of the tasks that a run has created.
    pub made: Vec<i64>,
    asked: u32,
    answered: u32,
    newest: Option<Newest>,
}

impl Account {
    /// The next request: 40 % lists, 30 % reads, 5 % searches, 5 % summaries, 15 % creations, 5 % changes.
    pub fn next(&mut self, random: &mut fastrand::Rng) -> Request {
        match random.u8(0..100) {
            0..40 => Request::List(self.newest),
            40..70 => Request::Get(self.any_task(random)),
            70..75 => Request::Search(WORDS[random.usize(..WORDS.len())]),
            75..80 => Request::Summary,
            80..95 => self.create(),
            _ => Request::Patch(self.any_task(random), STATUSES[random.usize(..STATUSES.len())]),
        }
    }

    /// A request for a new task.
    pub fn create(&mut self) -> Request {
        self.asked += 1;
        Request::Create { answered: self.answered }
    }

    fn any_task(&self, random: &mut fastrand::Rng) -> i64 {
        let index = random.usize(..self.tasks.len() + self.made.len());
        self.tasks.get(index).or_else(|| self.made.get(index - self.tasks.len())).copied().unwrap_or_default()
    }

    /// Writes the request to the end of `into`.
    pub fn write(&self, request: Request, into: &mut Vec<u8>) {
        let mut write = |method, path: std::fmt::Arguments<'_>, body: &str| {
            http::write(into, method, path, &self.token, body);
        };
        match request {
            Request::List(_) => write("GET", format_args!("/api/tasks"), ""),
            Request::Get(id) => write("GET", format_args!("/api/tasks/{id}"), ""),
            Request::Search(word) => write("GET", format_args!("/api/tasks/search?q={word}"), ""),
            Request::Summary => write("GET", format_args!("/api/tasks/summary"), ""),
            Request::Create { .. } => write("POST", format_args!("/api/tasks"), &new_task(self.asked)),
            Request::Patch(id, status) => {
                write("PATCH", format_args!("/api/tasks/{id}"), &format!(r#"{{"status":"{status}"}}"#));
            }
            Request::Delete(id) => write("DELETE", format_args!("/api/tasks/{id}"), ""),
        }
    }

    /// Takes note of an answer, if it is right.
    pub fn settle(&mut self, request: Request, answer: &Answer<'_>) -> Result<(), Wrong> {
        let expected = match request {
            Request::Create { .. } => 201,
            Request::Delete(_) => 204,
            _ => 200,
        };
        if answer.status != expected {
            return Err(Wrong::Status(answer.status));
        }
        let says = |text: &str| memmem::find(answer.body, text.as_bytes()).is_some();
        let shows = |id: i64| says(&format!("\"id\":{id},"));
        let must = |right: bool, wrong: &'static str| if right { Ok(()) } else { Err(Wrong::Body(wrong)) };
        match request {
            Request::List(newest) => {
                // It may have been pushed off the page by those that may be newer.
                let newest = newest.filter(|newest| ((self.asked - newest.answered) as usize) < TASKS);
                must(newest.is_none_or(|newest| shows(newest.id)), "a list without the task that was created before")?;
                let items = memmem::find_iter(answer.body, b"\"user_id\":").count();
                must(items == TASKS, "a list of more or fewer tasks than a page")
            }
            Request::Get(id) => must(shows(id), "another task than the one that was asked for"),
            Request::Search(word) => must(says(word), "a search that does not find a word that is there"),
            Request::Summary => must(STATUSES.iter().all(|status| says(status)), "a summary without every status"),
            Request::Create { answered } => {
                let id = id(answer.body).ok_or(Wrong::Body("a created task without an id"))?;
                self.answered += 1;
                self.newest = Some(Newest { id, answered });
                self.made.push(id);
                Ok(())
            }
            Request::Patch(id, status) => {
                must(shows(id) && says(&format!("\"status\":\"{status}\"")), "a change that does not show")
            }
            Request::Delete(_) => {
                self.newest = None;
                Ok(())
            }
        }
    }
}

/// The body of the `number`th task of an account.
fn new_task(number: u32) -> String {
    let number = number as usize;
    let (first, second) = (WORDS[number % WORDS.len()], WORDS[number * 7 % WORDS.len()]);
    let priority = ["low", "medium", "high", "urgent"][number % 4];
    format!(
        r#"{{"title":"The {first} of the {second}, part {number}","description":"What is to be done about it, by whom and until when.","priority":"{priority}"}}"#
    )
}

/// The first id in a body.
fn id(body: &[u8]) -> Option<i64> {
    let begin = memmem::find(body, b"\"id\":")? + 5;
    let digits = body[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&body[begin..begin + digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer<'_> {
        Answer { status, body: body.as_bytes() }
    }

    fn page(ids: std::ops::Range<i64>) -> String {
        ids.map(|id| format!(r#"{{"id":{id},"user_id":1}}"#)).collect::<Vec<_>>().join(",")
    }

    fn account_with_new_task(id: i64) -> Account {
        let mut account = Account { tasks: vec![1], ..Account::default() };
        let create = account.create();
        account.settle(create, &answer(201, &format!(r#"{{"id":{id},"title":"x"}}"#))).unwrap();
        account
    }

    #[test]
    fn a_list_must_show_what_was_created_before() {
        let mut account = account_with_new_task(77);
        let list = Request::List(account.newest);
        assert_eq!(account.settle(list, &answer(200, &page(60..80))), Ok(()));
        assert!(matches!(account.settle(list, &answer(200, &page(10..30))), Err(Wrong::Body(_))));
    }

    #[test]
    fn a_list_is_a_page() {
        let mut account = Account::default();
        assert!(matches!(account.settle(Request::List(None), &answer(200, &page(0..19))), Err(Wrong::Body(_))));
    }

    #[test]
    fn newer_tasks_may_push_it_off_the_page() {
        let mut account = account_with_new_task(77);
        let list = Request::List(account.newest);
        for _ in 1..TASKS {
            let _ = account.create();
        }
        assert_eq!(account.settle(list, &answer(200, &page(100..120))), Ok(()));
    }

    #[test]
    fn answers_are_looked_at() {
        let mut account = Account::default();
        let task = r#"{"id":5,"status":"completed"}"#;
        assert_eq!(account.settle(Request::Get(5), &answer(200, task)), Ok(()));
        assert_eq!(account.settle(Request::Patch(5, "completed"), &answer(200, task)), Ok(()));
        for (request, status) in [(Request::Get(6), 200), (Request::Patch(5, "pending"), 200), (Request::Get(5), 503)] {
            assert!(account.settle(request, &answer(status, task)).is_err(), "{request:?}");
        }
        assert_eq!(account.settle(Request::Summary, &answer(503, "")), Err(Wrong::Status(503)));
    }

    #[test]
    fn every_word_is_in_some_title() {
        let titles = (1..=TASKS).map(|number| new_task(u32::try_from(number).unwrap())).collect::<String>();
        assert!(WORDS.iter().all(|word| titles.contains(word)));
    }
}
