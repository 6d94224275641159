-- 50 more subscriptions that match nothing
INSERT INTO ev_subscriptions SELECT g, 'none.' || g || '.%' FROM generate_series(3, 52) g;
INSERT INTO ev_cursors (subscription, number, position, low) SELECT g, 0, 0, 0 FROM generate_series(3, 52) g;
