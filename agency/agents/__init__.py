"""The agents, one file a role. The deployer's agent asks the Mediator; the Mediator knows whom to ask."""
