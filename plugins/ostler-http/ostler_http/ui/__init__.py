"""The web page: what an operator looks at, as the application `ui`.

    application        routes and parts; `options` are those of its mount
    session_store      who has logged in; `login_codes`, `login_limit` and `login_views` are the way there
    security           headers of all responses, proof that a form is ours
    visit              one request of a caller with a role: what it may do, how it reads from the daemon
    page_view, live_view, feed_view, action_view, dump_view    the kinds of requests
    recent             what has happened lately
    fair_shares        who goes when there are too many of something
    actions            what buttons do: methods of the daemon and of plugins
    pages              one module for each page; `plugin_pages` lays out those that plugins bring
    rendering, filters  templates, and how values are written
    templates, static  HTML of pages; the style sheet and the script

Everything is read and done by the gateway, with the rights of the caller. Pages are HTML from the server; they can be
read without the script, which only makes them live.
"""
