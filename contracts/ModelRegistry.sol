// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IModelRegistry} from "./interfaces/IModelRegistry.sol";

/// @title ModelRegistry
/// @notice Published models and their aliases. The prose is in `IModelRegistry`.
contract ModelRegistry is IModelRegistry {
    uint256 private constant _MOST_NAME_BYTES = 64;
    uint256 private constant _MOST_URI_BYTES = 512;

    // slot 0
    mapping(bytes32 modelId => bool value) private _published;
    // slot 1
    mapping(bytes32 nameHash => address publisher) private _publishers;
    // slot 2: by the hashes of name and label, so that no two aliases can run together
    mapping(bytes32 nameHash => mapping(bytes32 labelHash => bytes32 modelId)) private _versions;
    // slot 3
    mapping(bytes32 nameHash => mapping(bytes32 labelHash => bytes32 modelId)) private _channels;

    /// @inheritdoc IModelRegistry
    function publish(bytes32 modelId, string calldata uri) external override {
        if (modelId == 0) revert ModelRegistry_ZeroModel();
        uint256 length = bytes(uri).length;
        if (length > _MOST_URI_BYTES) revert ModelRegistry_UriTooLong(length, _MOST_URI_BYTES);

        _published[modelId] = true;
        emit ModelPublished(modelId, msg.sender, uri);
    }

    /// @inheritdoc IModelRegistry
    function release(string calldata name, string calldata version, bytes32 modelId) external override {
        (bytes32 nameHash, bytes32 labelHash) = _take(name, version, modelId);
        _requireNoVersion(nameHash, labelHash, modelId);
        bytes32 standing = _channels[nameHash][labelHash];
        if (standing != 0) revert ModelRegistry_ChannelStands(modelId, standing);

        _versions[nameHash][labelHash] = modelId;
        emit VersionReleased(modelId, msg.sender, name, version);
    }

    /// @inheritdoc IModelRegistry
    function point(string calldata name, string calldata channel, bytes32 modelId) external override {
        (bytes32 nameHash, bytes32 labelHash) = _take(name, channel, modelId);
        _requireNoVersion(nameHash, labelHash, modelId);

        _channels[nameHash][labelHash] = modelId;
        emit ChannelPointed(modelId, msg.sender, name, channel);
    }

    /// @inheritdoc IModelRegistry
    function isPublished(bytes32 modelId) external view override returns (bool) {
        return _published[modelId];
    }

    /// @inheritdoc IModelRegistry
    function publisherOf(string calldata name) external view override returns (address) {
        return _publishers[_hash(name)];
    }

    /// @inheritdoc IModelRegistry
    function resolve(string calldata name, string calldata label)
        external
        view
        override
        returns (bytes32 modelId, bool isFixed)
    {
        (bytes32 nameHash, bytes32 labelHash) = (_hash(name), _hash(label));
        modelId = _versions[nameHash][labelHash];
        isFixed = modelId != 0;
        if (!isFixed) modelId = _channels[nameHash][labelHash];
    }

    /// @dev Passes for a published model and a name that is the caller's; one that is nobody's becomes the caller's.
    function _take(string calldata name, string calldata label, bytes32 modelId)
        private
        returns (bytes32 nameHash, bytes32 labelHash)
    {
        _requireWord(name);
        _requireWord(label);
        if (!_published[modelId]) revert ModelRegistry_NotPublished(modelId);
        (nameHash, labelHash) = (_hash(name), _hash(label));

        address publisher = _publishers[nameHash];
        if (publisher == msg.sender) return (nameHash, labelHash);
        if (publisher != address(0)) revert ModelRegistry_NotPublisher(msg.sender, publisher);
        _publishers[nameHash] = msg.sender;
        emit NameTaken(msg.sender, name);
    }

    function _requireNoVersion(bytes32 nameHash, bytes32 labelHash, bytes32 modelId) private view {
        bytes32 standing = _versions[nameHash][labelHash];
        if (standing != 0) revert ModelRegistry_VersionStands(modelId, standing);
    }

    /// @dev One case, no space and no at sign: what looks alike is alike, and an alias reads one way only.
    function _requireWord(string calldata word) private pure {
        bytes calldata raw = bytes(word);
        if (raw.length == 0 || raw.length > _MOST_NAME_BYTES) {
            revert ModelRegistry_WrongLength(raw.length, _MOST_NAME_BYTES);
        }
        for (uint256 i = 0; i < raw.length; ++i) {
            bytes1 letter = raw[i];
            bool isLetter = letter >= "a" && letter <= "z";
            bool isDigit = letter >= "0" && letter <= "9";
            bool isMark = letter == "." || letter == "_" || letter == "-";
            if (!isLetter && !isDigit && !isMark) revert ModelRegistry_WrongByte(letter, i);
        }
    }

    function _hash(string calldata word) private pure returns (bytes32) {
        return keccak256(bytes(word));
    }
}
