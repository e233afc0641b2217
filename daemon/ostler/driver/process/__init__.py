"""Drivers in a process of their own (`isolation = "process"`).

    messages, channel, values, failures     what goes between the two processes, and how; used by both
    child_process                           starts, watches and ends the process of a driver
    process_log                             logs what it prints and logs, within bounds
    driver_process                          calls into it, cancels, answers its requests
    remote_driver                           stands for the driver where the daemon has an instance otherwise
    __main__, call_server, child_services   the process itself

The process is a new interpreter, not a fork: it has nothing of the daemon's memory, descriptors and threads. Not here:
when a driver is started, retried and stopped (`ostler.driver.driver_runner`).
"""
