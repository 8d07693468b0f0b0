def test_the_migrations_make_what_the_models_say(flask_db, database_url):
    flask_db("check", database_url)
