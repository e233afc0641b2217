"""What a manager offers: exposed methods, their signatures and types, their description and versions.

Nothing here runs a method.
"""
