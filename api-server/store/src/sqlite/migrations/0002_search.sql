-- The words of titles and descriptions, and whose they are: a search intersects its words with its user, so that it does not sift everyone's
-- matches for one user's. It keeps no text, only the index: tasks have the text.
CREATE VIRTUAL TABLE tasks_search USING fts5 (
    owner, words, content = '', contentless_delete = 1, tokenize = 'porter unicode61'
);

-- What changed in a transaction. It is brought into the index at the transaction's end, and so empty outside of one: FTS5 writes what it has
-- gathered with every savepoint, and one write for each task takes several times as long as one for all.
CREATE TABLE unindexed_tasks (
    id INTEGER PRIMARY KEY
) STRICT;

CREATE TRIGGER tasks_search_insert AFTER INSERT ON tasks BEGIN
    INSERT INTO unindexed_tasks (id) VALUES (new.id) ON CONFLICT DO NOTHING;
END;

CREATE TRIGGER tasks_search_update AFTER UPDATE OF title, description ON tasks
WHEN new.title IS NOT old.title OR new.description IS NOT old.description BEGIN
    INSERT INTO unindexed_tasks (id) VALUES (new.id) ON CONFLICT DO NOTHING;
END;

CREATE TRIGGER tasks_search_delete AFTER DELETE ON tasks BEGIN
    INSERT INTO unindexed_tasks (id) VALUES (old.id) ON CONFLICT DO NOTHING;
END;
