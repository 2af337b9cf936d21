//! All of one user's tasks, ready to be answered from: no query, no serialization.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use task_api_domain::{
    id::TaskId,
    position::Position,
    summary::Summary,
    task::{Filter, Priority, Status, Task, Version},
};
use task_api_store::{SearchRequest, StoreError};

/// How many searches a view remembers.
const SEARCHES: usize = 8;
/// What a view takes beside its tasks, and a task beside its JSON, in bytes: fields, allocations' overhead, room that vectors keep free.
const VIEW_BYTES: usize = 256;
const ENTRY_BYTES: usize = 80;

/// A task of a view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it stands in a list; its id is in there.
    pub position: Position,
    /// Which state of the task this is.
    pub version: Version,
    status: Status,
    priority: Priority,
    json: Box<str>,
}

impl Entry {
    /// Serializes a task, once for all the answers that it will be in.
    pub fn new(task: &Task) -> Result<Self, StoreError> {
        let json = serde_json::to_string(task)
            .map_err(|error| StoreError::Broken(format!("task {} can't be serialized: {error}", task.id)))?;
        let Task { version, status, priority, .. } = *task;
        Ok(Self { position: task.position(), version, status, priority, json: json.into() })
    }

    /// The task as clients see it.
    pub fn json(&self) -> &str {
        &self.json
    }

    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.json.len()
    }

    fn shown_by(&self, filter: Filter) -> bool {
        filter.status.is_none_or(|status| status == self.status)
            && filter.priority.is_none_or(|priority| priority == self.priority)
    }
}

/// The ids of a piece's tasks, and whether there are more.
type Ids = (Vec<i64>, bool);

/// How many tasks there are of each status and priority.
type Counts = [[u64; Priority::ALL.len()]; Status::ALL.len()];

/// A user's tasks.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The oldest first: new tasks come last, where there is room.
    entries: Vec<Entry>,
    counts: Counts,
    bytes: usize,
    changes: u64,
    /// What searches found, the latest used last. A change to any task forgets them.
    searches: Vec<(SearchRequest, Ids)>,
}

impl View {
    /// A view of these tasks, in any order.
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_unstable_by_key(|entry| entry.position);
        entries.shrink_to_fit();
        let mut view = Self { bytes: entries.iter().map(Entry::bytes).sum(), ..Self::default() };
        for entry in &entries {
            *view.count(entry) += 1;
        }
        Self { entries, ..view }
    }

    /// Takes in a task that was made or changed. One that is here in a later state stays as it is.
    pub fn put(&mut self, entry: Entry) {
        match self.entries.binary_search_by_key(&entry.position, |entry| entry.position) {
            Ok(at) if self.entries[at].version >= entry.version => {}
            Ok(at) => {
                self.came(&entry);
                let old = std::mem::replace(&mut self.entries[at], entry);
                self.went(&old);
            }
            Err(at) => {
                self.came(&entry);
                if self.entries.len() == self.entries.capacity() {
                    // There are many views: each with room for as many tasks again would take a megabyte for a thousand.
                    self.entries.reserve_exact(self.entries.len() / 4 + 4);
                }
                self.entries.insert(at, entry);
            }
        }
    }

    /// Forgets a task that was deleted.
    pub fn remove(&mut self, id: TaskId) {
        if let Some(at) = self.entries.iter().rposition(|entry| entry.position.id == id.get()) {
            let old = self.entries.remove(at);
            self.went(&old);
        }
    }

    fn came(&mut self, entry: &Entry) {
        *self.count(entry) += 1;
        self.bytes += entry.bytes();
        self.changes += 1;
        self.searches.clear();
    }

    fn went(&mut self, entry: &Entry) {
        *self.count(entry) -= 1;
        self.bytes -= entry.bytes();
        self.changes += 1;
        self.searches.clear();
    }

    fn count(&mut self, entry: &Entry) -> &mut u64 {
        &mut self.counts[entry.status as usize][entry.priority as usize]
    }

    /// How often it has changed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// What it takes in memory, about.
    pub fn bytes(&self) -> usize {
        let found: usize = self.searches.iter().map(|(_, (ids, _))| VIEW_BYTES + 8 * ids.len()).sum();
        VIEW_BYTES + self.bytes + found
    }

    /// Every task, the oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// A task.
    pub fn get(&self, id: TaskId) -> Option<&Entry> {
        // From the end, since it is recent tasks that are asked for.
        self.entries.iter().rfind(|entry| entry.position.id == id.get())
    }

    /// The tasks that `filter` shows, after a place, newest first.
    pub fn list(&self, filter: Filter, after: Option<Position>) -> impl Iterator<Item = &Entry> {
        let end = after.map_or(self.entries.len(), |after| self.entries.partition_point(|one| one.position < after));
        self.entries[..end].iter().rev().filter(move |entry| entry.shown_by(filter))
    }

    /// How many tasks there are, by what they are.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::new(Timestamp::now());
        for (status, by_priority) in Status::ALL.iter().zip(&self.counts) {
            for (priority, count) in Priority::ALL.iter().zip(by_priority) {
                summary.add(*status, *priority, *count);
            }
        }
        summary
    }

    /// What a search found and whether there is more, if that is known and still so.
    pub fn searched(&mut self, key: &SearchRequest) -> Option<(Vec<&Entry>, bool)> {
        let at = self.searches.iter().position(|(known, _)| known == key)?;
        self.searches[at..].rotate_left(1);
        let (_, (ids, more)) = self.searches.last()?;
        let found = ids.iter().map(|id| self.entries.iter().rfind(|entry| entry.position.id == *id));
        Some((found.collect::<Option<_>>()?, *more))
    }

    /// Remembers what a search found when the view had changed `changes` times.
    pub fn remember_search(&mut self, key: SearchRequest, found: Ids, changes: u64) {
        if changes != self.changes || self.searches.iter().any(|(known, _)| *known == key) {
            return;
        }
        if self.searches.len() == SEARCHES {
            self.searches.remove(0);
        }
        self.searches.push((key, found));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use task_api_domain::search::SearchQuery;

    /// What happens to a view.
    #[derive(Clone, Debug)]
    enum Event {
        Put(Task),
        Remove(i64),
    }

    fn task() -> impl Strategy<Value = Task> {
        let words = (prop::sample::select(Status::ALL), prop::sample::select(Priority::ALL));
        (1i64..30, 1i64..5, words, "[a-z\"ä]{1,8}").prop_map(|(id, version, (status, priority), title)| {
            // Some tasks are made in the same microsecond, and not in the order of their ids.
            let created_at = Timestamp::from_microsecond(id * 7 % 10).unwrap();
            Task {
                id,
                user_id: 1,
                version: Version(version),
                title,
                description: None,
                status,
                priority,
                created_at,
                updated_at: created_at,
                due_date: None,
            }
        })
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![3 => task().prop_map(Event::Put), 1 => (1i64..30).prop_map(Event::Remove)];
        prop::collection::vec(event, 0..60)
    }

    /// The same, the simplest way.
    fn model(events: &[Event]) -> BTreeMap<i64, Task> {
        let mut tasks = BTreeMap::<i64, Task>::new();
        for event in events {
            match event {
                Event::Put(task) => {
                    if tasks.get(&task.id).is_none_or(|old| old.version < task.version) {
                        tasks.insert(task.id, task.clone());
                    }
                }
                Event::Remove(id) => {
                    tasks.remove(id);
                }
            }
        }
        tasks
    }

    fn view(events: &[Event]) -> View {
        let mut view = View::default();
        for event in events {
            match event {
                Event::Put(task) => view.put(Entry::new(task).unwrap()),
                Event::Remove(id) => view.remove(TaskId::new(*id).unwrap()),
            }
        }
        view
    }

    fn json(task: &Task) -> String {
        serde_json::to_string(task).unwrap()
    }

    proptest! {
        #[test]
        fn it_lists_what_there_is(
            events in events(),
            status in prop::option::of(prop::sample::select(Status::ALL)),
            priority in prop::option::of(prop::sample::select(Priority::ALL)),
            after in prop::option::of((0i64..10, 0i64..31)),
        ) {
            let filter = Filter { status, priority };
            let after = after.map(|(at, id)| Position { created_at: Timestamp::from_microsecond(at).unwrap(), id });
            let mut expected: Vec<_> = model(&events).into_values().collect();
            expected.retain(|task| {
                status.is_none_or(|status| task.status == status)
                    && priority.is_none_or(|priority| task.priority == priority)
                    && after.is_none_or(|after| (task.created_at, task.id) < (after.created_at, after.id))
            });
            expected.sort_by_key(|task| std::cmp::Reverse((task.created_at, task.id)));
            let expected: Vec<_> = expected.iter().map(json).collect();
            let view = view(&events);
            prop_assert_eq!(view.list(filter, after).map(Entry::json).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn it_counts_and_finds_what_there_is(events in events(), id in 1i64..31) {
            let (view, model) = (view(&events), model(&events));
            let summary = view.summary();
            for status in Status::ALL {
                let count = model.values().filter(|task| task.status == *status).count();
                prop_assert_eq!(summary.with_status(*status), count as u64);
            }
            for priority in Priority::ALL {
                let count = model.values().filter(|task| task.priority == *priority).count();
                prop_assert_eq!(summary.with_priority(*priority), count as u64);
            }
            let found = view.get(TaskId::new(id).unwrap()).map(|entry| entry.json().to_owned());
            prop_assert_eq!(found, model.get(&id).map(json));
        }

        #[test]
        fn made_at_once_or_bit_by_bit_it_is_the_same(events in events()) {
            let bit_by_bit = view(&events);
            let at_once = View::new(model(&events).values().map(|task| Entry::new(task).unwrap()).collect());
            prop_assert_eq!(bit_by_bit.entries(), at_once.entries());
            prop_assert_eq!(bit_by_bit.counts, at_once.counts);
            prop_assert_eq!(bit_by_bit.bytes(), at_once.bytes());
        }
    }

    fn request(query: &str) -> SearchRequest {
        SearchRequest { query: SearchQuery::parse(query).unwrap(), after: None, limit: 10 }
    }

    fn found(view: &mut View, query: &str) -> Option<Vec<i64>> {
        let (found, more) = view.searched(&request(query))?;
        assert!(!more);
        Some(found.iter().map(|entry| entry.position.id).collect())
    }

    pub(in crate::views) fn some_task(id: i64) -> Task {
        let at = Timestamp::from_microsecond(id).unwrap();
        Task {
            id,
            user_id: 1,
            version: Version(1),
            title: "x".to_owned(),
            description: None,
            status: Status::Pending,
            priority: Priority::Low,
            created_at: at,
            updated_at: at,
            due_date: None,
        }
    }

    #[test]
    fn a_search_is_known_until_something_changes() {
        let mut view = View::new((1..5).map(|id| Entry::new(&some_task(id)).unwrap()).collect());
        assert_eq!(found(&mut view, "a"), None);
        view.remember_search(request("a"), (vec![3, 1], false), view.changes());
        assert_eq!(found(&mut view, "a"), Some(vec![3, 1]));
        assert_eq!(found(&mut view, "b"), None);

        let changes = view.changes();
        view.put(Entry::new(&some_task(3)).unwrap());
        assert_eq!(found(&mut view, "a"), Some(vec![3, 1]), "the same state of a task is no change");
        view.remove(TaskId::new(1).unwrap());
        assert_eq!(found(&mut view, "a"), None);
        view.remember_search(request("a"), (vec![3, 1], false), changes);
        assert_eq!(found(&mut view, "a"), None, "it was asked before the change");
    }

    #[test]
    fn the_searches_used_last_are_known() {
        let mut view = View::new(vec![Entry::new(&some_task(1)).unwrap()]);
        for number in 0..=SEARCHES {
            view.remember_search(request(&format!("w{number}")), (vec![1], false), view.changes());
            assert_eq!(found(&mut view, "w0"), Some(vec![1]));
        }
        assert_eq!(found(&mut view, "w1"), None);
        assert_eq!(view.searches.len(), SEARCHES);
    }
}
