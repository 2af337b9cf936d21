-- The words of titles and descriptions, and whose they are: a search intersects its words with its user, so that it does not sift everyone's
-- matches for one user's. It keeps no text, only the index: tasks have the text.
CREATE VIRTUAL TABLE tasks_search USING fts5 (
    owner, words, content = '', contentless_delete = 1, tokenize = 'porter unicode61'
);

CREATE TRIGGER tasks_search_insert AFTER INSERT ON tasks BEGIN
    INSERT INTO tasks_search (rowid, owner, words)
    VALUES (new.id, new.user_id, new.title || ' ' || coalesce(new.description, ''));
END;

CREATE TRIGGER tasks_search_update AFTER UPDATE OF title, description ON tasks
WHEN new.title IS NOT old.title OR new.description IS NOT old.description BEGIN
    INSERT OR REPLACE INTO tasks_search (rowid, owner, words)
    VALUES (new.id, new.user_id, new.title || ' ' || coalesce(new.description, ''));
END;

CREATE TRIGGER tasks_search_delete AFTER DELETE ON tasks BEGIN
    DELETE FROM tasks_search WHERE rowid = old.id;
END;
