"""What carries HTTP: listeners, connections, requests, mounts. It knows no application, and nothing of the daemon.

http_server    all of one service, on its loop: started, changed and stopped as a whole
loop_thread    the thread with that loop
listener       sockets that accept; `connections` bounds what they accept; `connection` is one of them
requests       a request from its connection to its mount; `mounts` is the table of these
wsgi           WSGI applications, on threads of `thread_pool`
"""
